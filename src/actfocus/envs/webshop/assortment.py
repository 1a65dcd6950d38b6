"""What the synthetic shop sells: departments, types of product, their attributes and options.

All of it is our own. Three rules keep rewards fair, because a shop that is scored by fuzzy text matching
would otherwise give credit for an attribute that a product lacks (the tests hold them): within one type, no
attribute's words are among those of another; no sentence contains an attribute of the type other than the
one put into it; no two values of an option look nearly alike. Words are few and used often, as a very small
model has to learn them.
"""

from typing import NamedTuple


class Facet(NamedTuple):
    """One thing in which products of a type differ: a product has exactly one of the `values`."""

    bullet: str
    """The sentence that shows the value, with {} where it stands."""
    values: tuple[str, ...]
    part: bool = False
    """Whether the values are things a product comes with, so that "bottles with screw cap" reads well."""


class Kind(NamedTuple):
    """One type of product."""

    department: str
    group: str
    name: str
    query: str
    """The name in the plural: what a shopper types. Equal to `name` for what is sold in pairs."""
    price: tuple[int, int]
    """Lowest and highest price of a family's cheapest product, in dollars."""
    facets: str
    """Keys of `FACETS`, apart by spaces."""
    options: str
    """Keys of `OPTIONS`, apart by spaces, at most two."""
    purpose: str


BRANDS = (
    *("brindo", "carvik", "dovelin", "fendrik", "gravlo", "harnix", "ilmora", "kelvane"),
    *("luskin", "mindle", "nustel", "obrin", "ostrel", "plimo", "podrin", "quorl"),
    *("rundel", "mirvo", "tarvo", "tolvar", "uldane", "wendro", "yarrel", "zimbra"),
)
"""Invented words."""

FACETS = {
    # Materials and looks
    "vessel": Facet("made of {} that lasts for years", ("stainless steel", "clear glass", "hard plastic")),
    "iron": Facet("made of {} that lasts for years", ("stainless steel", "cast iron", "hard ceramic")),
    "wood": Facet("made of {} that lasts for years", ("solid wood", "wire mesh", "hard plastic")),
    "cloth": Facet("made of {} for daily comfort", ("organic cotton", "pure linen", "soft fleece")),
    "foam": Facet("made of {} for daily comfort", ("soft rubber", "hard cork", "memory foam")),
    "filling": Facet("filled with {} that keeps its shape", ("memory foam", "duck down", "hollow fiber")),
    "finish": Facet("comes with a {} surface", ("matte", "glossy", "brushed")),
    "look": Facet("a {} look for any home", ("modern", "classic", "rustic")),
    "pattern": Facet("comes with a {} pattern", ("striped", "floral", "checkered")),
    "build": Facet("the {} build is easy to use", ("lightweight", "heavy duty", "extra slim")),
    # What it stands up to
    "spill": Facet("{} so your bag stays dry", ("leak proof", "sweat proof", "spill proof")),
    "weather": Facet("{} so you stay dry and warm", ("waterproof", "windproof", "sweat proof")),
    "shock": Facet("{} so your phone stays safe", ("shock proof", "scratch proof", "dust proof")),
    "thorn": Facet("{} so your hands stay safe", ("thorn proof", "waterproof", "cut proof")),
    "winter": Facet("{} even after a long winter", ("rust proof", "fade proof", "scratch proof")),
    "chew": Facet("{} so it lasts with any pet", ("chew proof", "waterproof", "scratch proof")),
    "meal": Facet("{} so every meal is easy", ("slow feeding", "spill proof", "ant proof")),
    "surface": Facet("the {} surface is easy to use", ("non slip", "extra thick", "sweat proof")),
    # Health and care
    "safe": Facet("tested and {} for all the family", ("bpa free", "lead free", "odor free")),
    "dishes": Facet("{} after every meal at home", ("dishwasher safe", "hand wash", "wipe clean")),
    "laundry": Facet("{} at home with care", ("machine wash", "hand wash", "dry clean")),
    "sleep": Facet("a {} cover for a good night", ("hypoallergenic", "dust proof", "lint free")),
    "season": Facet("a {} cloth for every season", ("breathable", "thermal", "cooling")),
    "hair": Facet("made for {} of any length", ("dry hair", "oily hair", "curly hair")),
    "skin": Facet("made for {} in every season", ("dry skin", "oily skin", "sensitive skin")),
    "free": Facet("this mix is {} and safe", ("sulfate free", "paraben free", "alcohol free")),
    "ethics": Facet("every batch is {} and safe", ("cruelty free", "vegan", "lab tested")),
    "oil": Facet("made with {} for a healthy look", ("argan oil", "coconut oil", "tea tree"), part=True),
    "tube": Facet("comes in a {} for your bag", ("pump bottle", "squeeze tube", "travel jar"), part=True),
    # Food
    "diet": Facet("{} for all friends and family", ("gluten free", "dairy free", "nut free")),
    "sugar": Facet("{} for a healthy day", ("sugar free", "low sodium", "high protein")),
    "farm": Facet("{} and made in small batches", ("certified organic", "non gmo", "lab tested")),
    "grain": Facet("full of {} in every bite", ("whole grain", "rolled oats", "sunflower seeds"), part=True),
    "cooking": Facet("{} for a good taste", ("slow roasted", "kettle cooked", "freeze dried")),
    "pouch": Facet("stays fresh in a {}", ("zip bag", "gift tin", "glass jar"), part=True),
    "brew": Facet("a {} cup for any hour", ("mild brew", "strong brew", "decaf")),
    "heat": Facet("made with {} for every bite", ("mild heat", "medium heat", "extra heat")),
    # Parts
    "lid": Facet("closes with a {} that stays in place", ("flip top", "screw cap", "straw lid"), part=True),
    "wall": Facet("the {} body stays warm for hours", ("double wall", "vacuum sealed", "foam lined")),
    "grip": Facet("easy to hold by the {}", ("soft grip", "rubber grip", "cork grip"), part=True),
    "handle": Facet("easy to hold by the {}", ("wood handle", "foam handle", "long handle"), part=True),
    "light": Facet("a {} cloth for a good night", ("blackout", "sheer", "light filtering")),
    "dry": Facet("{} after every bath at home", ("quick dry", "highly absorbent", "extra thick")),
    "firm": Facet("{} for a good night at home", ("extra firm", "medium firm", "very soft")),
    "bristle": Facet("easy to use with {}", ("soft bristles", "nylon bristles", "wire bristles"), part=True),
    "fit": Facet("cut in a {} for daily comfort", ("slim fit", "regular fit", "relaxed fit")),
    "sleeve": Facet("the {} cut is made to move", ("short sleeve", "long sleeve", "sleeveless")),
    "zip": Facet("closes fast with the {}", ("long zipper", "snap buttons", "side straps"), part=True),
    "pocket": Facet(
        "keep small things in the {}", ("side pocket", "chest pocket", "inner pocket"), part=True
    ),
    "sole": Facet("walk for hours on a {}", ("rubber sole", "foam sole", "cork sole"), part=True),
    "arch": Facet("walk for hours with the {}", ("arch support", "padded heel", "wide toe"), part=True),
    "brim": Facet("a {} keeps out the sun", ("wide brim", "short brim", "rolled brim"), part=True),
    "power": Facet("{} for hours of use", ("usb powered", "battery powered", "solar powered")),
    "link": Facet("the {} set is easy to use", ("wireless", "plug in", "dual mode")),
    "sound": Facet("made for music with {}", ("noise cancelling", "deep bass", "stereo sound"), part=True),
    "ear": Facet("the {} shape is easy to wear", ("over ear", "open back", "neck band")),
    "cord": Facet("the {} cord stays neat", ("braided nylon", "tangle free", "extra thick")),
    "charge": Facet("made for {} at any hour", ("fast charging", "data sync", "car charging")),
    "back": Facet("comes with a {} on the back", ("card holder", "ring stand", "wrist strap"), part=True),
    "glow": Facet("gives {} light for late hours", ("dimmable", "warm tone", "eye friendly")),
    "base": Facet("stays in place on its {}", ("long neck", "clip base", "heavy base"), part=True),
    "stand": Facet("stays in place on its {}", ("rubber base", "raised stand", "wide ring"), part=True),
    "hose": Facet("an easy {} line for any garden", ("kink free", "leak proof", "expandable")),
    "nozzle": Facet(
        "comes with a {} for easy use", ("spray nozzle", "brass nozzle", "quick nozzle"), part=True
    ),
    "drain": Facet("water stays in place with the {}", ("drain holes", "wide tray", "raised rim"), part=True),
    "place": Facet("made for {} use in every season", ("indoor", "outdoor", "hanging")),
    "palm": Facet("hold tools with the {}", ("rubber palm", "leather palm", "nylon palm"), part=True),
    "seed": Facet("birds eat from the {} all day", ("seed tray", "seed tube", "seed ring"), part=True),
    "pages": Facet("write or draw on {}", ("dotted pages", "lined pages", "blank pages"), part=True),
    "bound": Facet("the {} book stays in place", ("spiral bound", "hard cover", "soft cover")),
    "paper": Facet("write or draw on {} sheets", ("acid free", "recycled", "extra thick")),
    "ink": Facet("the {} ink gives clear lines", ("quick dry", "smudge proof", "fade proof")),
    "tip": Facet("write or draw with a {}", ("fine tip", "bold tip", "medium tip"), part=True),
    "click": Facet("the {} kind is easy to use", ("retractable", "capped", "refillable")),
    "drawer": Facet("keep small things in the {}", ("side drawer", "phone drawer", "pen drawer"), part=True),
    "rest": Facet("sit for hours with the {}", ("lumbar support", "head rest", "foot rest"), part=True),
    "seat": Facet("sit for hours on the {}", ("mesh seat", "leather seat", "nylon seat"), part=True),
    "swivel": Facet("moves with you on its {}", ("swivel base", "rocking base", "caster wheels"), part=True),
    "nest": Facet("pets sleep well with the {}", ("raised rim", "zip cover", "soft walls"), part=True),
    "toy": Facet("made with {} for your pet", ("catnip", "bells", "feathers"), part=True),
    "play": Facet("a {} toy for any hour", ("self rolling", "squeaky", "hanging")),
    "leash": Facet("a {} line for daily walks", ("retractable", "hands free", "braided nylon")),
    "clip": Facet("walk for hours with the {}", ("swivel clip", "bolt clip", "lock clip"), part=True),
    "carry": Facet("easy to move with the {}", ("carry strap", "mesh bag", "belt clip"), part=True),
    "setup": Facet("{} so your camp stands fast", ("pop up", "free standing", "quick pitch")),
    "months": Facet("a {} home for any camp", ("two season", "three season", "four season")),
    "porch": Facet("sleep well with the {}", ("rain fly", "mesh windows", "side windows"), part=True),
    "pouches": Facet("keep things in the {}", ("laptop pouch", "bottle pouch", "shoe pouch"), part=True),
    "straps": Facet("walk for hours with the {}", ("padded straps", "chest belt", "mesh straps"), part=True),
    "travel": Facet("the {} kind is made to move", ("anti theft", "carry on", "roll top")),
    "rope": Facet("the {} line moves fast", ("steel cable", "cotton cord", "nylon cord")),
    "spin": Facet("the {} kind is made to move", ("ball bearing", "tangle free", "weighted")),
}

OPTIONS = {
    "color": ("Color", ("black", "white", "navy", "teal", "red", "green", "gray", "pink")),
    "size": ("Size", ("small", "medium", "large", "huge")),
    "shoe": ("Size", ("size 6", "size 7", "size 8", "size 9")),
    "ounces": ("Size", ("8 ounce", "16 ounce", "24 ounce")),
    "inches": ("Size", ("6 inch", "8 inch", "10 inch", "24 inch")),
    "length": ("Length", ("3 feet", "6 feet", "9 feet", "24 feet")),
    "pack": ("Pack", ("single", "two pack", "four pack", "six pack")),
    "flavor": ("Flavor", ("honey", "cocoa", "apple", "vanilla", "salted", "lemon")),
    "scent": ("Scent", ("honey", "lavender", "rose", "vanilla", "lemon", "mint")),
}
"""Key → name of the option and its values, in the order in which a page lists them."""

KINDS = (
    Kind("kitchen", "drinks", "water bottle", "water bottles", (9, 40),
         "spill vessel safe lid wall", "color ounces", "work, sport and travel"),
    Kind("kitchen", "drinks", "coffee mug", "coffee mugs", (6, 30),
         "finish wall look lid dishes", "color ounces", "hot drinks at home or work"),
    Kind("kitchen", "cooking", "frying pan", "frying pans", (15, 90),
         "iron build dishes handle look", "inches color", "every meal at home"),
    Kind("kitchen", "storage", "lunch box", "lunch boxes", (8, 40),
         "spill vessel dishes safe lid", "color size", "school, work and travel"),
    Kind("home", "bedroom", "pillow", "pillows", (10, 70),
         "firm filling sleep laundry pattern", "size pack", "a good night at home"),
    Kind("home", "bedroom", "blanket", "blankets", (15, 90),
         "season cloth pattern laundry look", "color size", "a good night at home"),
    Kind("home", "windows", "curtain", "curtains", (10, 60),
         "light cloth pattern laundry look", "color length", "any home"),
    Kind("home", "bath", "bath towel", "bath towels", (8, 50),
         "dry cloth pattern laundry look", "color pack", "every bath at home"),
    Kind("beauty", "hair care", "shampoo", "shampoos", (5, 30),
         "free ethics hair oil tube", "scent ounces", "clean hair every day"),
    Kind("beauty", "hair care", "hair brush", "hair brushes", (5, 30),
         "finish build hair bristle handle", "color size", "neat hair every day"),
    Kind("beauty", "skin care", "face cream", "face creams", (8, 60),
         "free ethics skin oil tube", "scent ounces", "your face, day and night"),
    Kind("beauty", "skin care", "body lotion", "body lotions", (6, 35),
         "free ethics skin oil tube", "scent pack", "your body, day and night"),
    Kind("clothing", "rain", "rain jacket", "rain jackets", (25, 120),
         "weather fit season zip pocket", "color size", "long walks in the rain"),
    Kind("clothing", "shoes", "running shoes", "running shoes", (30, 130),
         "build weather season sole arch", "color shoe", "sport in town or camp"),
    Kind("clothing", "shirts", "polo shirt", "polo shirts", (12, 60),
         "fit sleeve cloth laundry pocket", "color size", "work, sport and travel"),
    Kind("clothing", "socks", "hiking socks", "hiking socks", (6, 30),
         "cloth build season laundry arch", "size pack", "long walks in town or camp"),
    Kind("clothing", "hats", "sun hat", "sun hats", (8, 45),
         "build cloth season laundry brim", "color size", "long walks in the sun"),
    Kind("electronics", "phones", "usb cable", "usb cables", (4, 25),
         "charge cord build finish look", "length color", "phones at home or work"),
    Kind("electronics", "phones", "phone case", "phone cases", (5, 40),
         "shock finish build grip back", "color size", "phones at work and in town"),
    Kind("electronics", "audio", "headphones", "headphones", (15, 180),
         "ear link build sound carry", "color", "music at home or work"),
    Kind("electronics", "audio", "speaker", "speakers", (15, 200),
         "link power finish sound base", "color size", "music at home or camp"),
    Kind("electronics", "light", "desk lamp", "desk lamps", (12, 80),
         "glow power look finish base", "color size", "late work at home"),
    Kind("grocery", "snacks", "granola bar", "granola bars", (4, 25),
         "diet sugar farm cooking grain", "flavor pack", "school, work and travel"),
    Kind("grocery", "snacks", "potato chips", "potato chips", (3, 20),
         "diet sugar farm cooking pouch", "flavor pack", "friends and family"),
    Kind("grocery", "drinks", "tea bags", "tea bags", (4, 30),
         "brew farm diet sugar pouch", "flavor pack", "hot drinks at home or work"),
    Kind("grocery", "sauces", "hot sauce", "hot sauces", (3, 20),
         "heat diet sugar farm cooking", "flavor ounces", "every meal at home"),
    Kind("garden", "water", "garden hose", "garden hoses", (15, 80),
         "hose build winter safe nozzle", "length color", "plants in any garden"),
    Kind("garden", "plants", "plant pot", "plant pots", (6, 50),
         "vessel finish winter place drain", "color inches", "plants at home or garden"),
    Kind("garden", "tools", "garden gloves", "garden gloves", (5, 25),
         "thorn cloth season laundry palm", "size color", "work in any garden"),
    Kind("garden", "birds", "bird feeder", "bird feeders", (8, 60),
         "winter vessel look build seed", "color size", "small birds in any garden"),
    Kind("office", "paper", "notebook", "notebooks", (4, 25),
         "bound paper look pages pocket", "color pack", "school, work and travel"),
    Kind("office", "pens", "gel pen", "gel pens", (3, 18),
         "ink click finish tip grip", "color pack", "school and work"),
    Kind("office", "storage", "desk organizer", "desk organizers", (9, 60),
         "wood look build finish drawer", "color size", "a neat desk at work"),
    Kind("office", "chairs", "office chair", "office chairs", (60, 220),
         "build look rest seat swivel", "color size", "long hours at work"),
    Kind("pets", "dogs", "dog bed", "dog beds", (15, 110),
         "chew filling look laundry nest", "color size", "dogs at home"),
    Kind("pets", "dogs", "dog leash", "dog leashes", (7, 40),
         "leash chew build clip grip", "color length", "dogs in town or camp"),
    Kind("pets", "cats", "cat toy", "cat toys", (3, 20),
         "play chew safe pattern toy", "color pack", "cats at home"),
    Kind("pets", "meal", "pet bowl", "pet bowls", (5, 35),
         "meal vessel dishes safe stand", "color size", "cats and dogs at home"),
    Kind("sports", "yoga", "yoga mat", "yoga mats", (12, 80),
         "surface foam safe build carry", "color length", "sport at home or camp"),
    Kind("sports", "camping", "camping tent", "camping tents", (45, 240),
         "setup weather months porch carry", "color size", "family and friends in camp"),
    Kind("sports", "bags", "backpack", "backpacks", (20, 120),
         "travel weather build pouches straps", "color size", "school, work and travel"),
    Kind("sports", "sport", "jump rope", "jump ropes", (5, 30),
         "spin rope build handle carry", "color length", "sport at home or camp"),
)  # fmt: skip
"""Every type of product."""

NOTES = (
    "a good gift for friends and family",
    "packed with care in a small box",
    "a good price for every day",
)
"""What a page says besides: true of everything, so that it tells nothing apart."""
