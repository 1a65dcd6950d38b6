"""The page can be read, promises: contrast in both themes, no colour without a second sign, no sideways
scrolling on a phone, a name for every control.
"""

import pytest

from tests.report.viewer.runs import REPLY, play, with_figures

CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const found = {};
  const place = document.querySelector(".message.reply .tokens");
  for (const level of ["m0","m1","m2","m3","m4","m5","m6","z","p1","p2","p3","p4","n1","n2","n3","n4",
                       "by-role r1", "by-role r2", "by-role r3"]) {
    const one = document.createElement("span");
    one.className = "t " + level; place.append(one);
    const style = getComputedStyle(one);
    const [a, b] = [style.color, style.backgroundColor].map(rgb).map(light);
    found[level] = {
      contrast: (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05),
      light: b, hatched: style.backgroundImage !== "none",
    };
    one.remove();
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_read_without_hue(scheme: str, open_viewer, small) -> None:
    viewer = open_viewer(small, scheme=scheme)
    viewer.shows(1, 0)
    found = viewer.page.evaluate(CONTRASTS)
    assert {level: round(one["contrast"], 1) for level, one in found.items() if one["contrast"] < 4.5} == {}
    # Size by lightness, in one direction; sign by hatching.
    for stem, top in (("m", 6), ("p", 4), ("n", 4)):
        lights = [found[f"{stem}{level}"]["light"] for level in range(0 if stem == "m" else 1, top + 1)]
        assert lights == sorted(lights, reverse=scheme == "light"), stem
        assert len({round(light, 3) for light in lights}) == len(lights)
    assert all(one["hatched"] == level.startswith("n") for level, one in found.items())
    # The environment's words are pale already: its template is not paler still.
    pale = "all => [...new Set(all.map((one) => getComputedStyle(one).opacity))]"
    assert viewer.page.eval_on_selector_all(".message.user .dim", pale) == ["1"]
    # Roles by their underlines.
    styles = {
        role: viewer.page.eval_on_selector(f".t.r{role}", "one => getComputedStyle(one).borderBottomStyle")
        for role in (1, 2, 3)
    }
    assert len(set(styles.values())) == 3


def test_the_switch_overrides_the_system(open_viewer, small) -> None:
    viewer = open_viewer(small, scheme="dark")
    viewer.shows(1, 0)

    def paper() -> str:
        return str(viewer.page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))

    dark = paper()
    viewer.page.click("#theme")
    assert viewer.page.inner_text("#theme") == "Theme: light"
    light = paper()
    assert light != dark
    viewer.press("t")
    assert paper() == dark
    viewer.page.emulate_media(color_scheme="light")
    assert paper() == dark
    viewer.press("t")
    assert viewer.page.inner_text("#theme") == "Theme: system"
    assert paper() == light


@pytest.mark.parametrize("width", [360, 820])
def test_no_sideways_scrolling(width: int, open_viewer, write_page) -> None:
    long = "<think>" + "x" * 300 + "</think><answer> Up</answer>"
    viewer = open_viewer(write_page({1: [with_figures(play([long, REPLY]))]}), width=width)
    viewer.shows(1, 0)
    for keys in ([], ["a"], ["4"], ["g"]):
        viewer.press(*keys)
        assert viewer.page.evaluate("document.documentElement.scrollWidth") <= width
    viewer.page.focus(".t.r2 >> nth=0")
    token = viewer.page.locator(".t.current").bounding_box()
    sheet = viewer.page.locator("#details").bounding_box()
    assert token["y"] + token["height"] <= sheet["y"] + 1  # the figures do not cover their token


def test_labels(open_viewer, small) -> None:
    viewer = open_viewer(small)
    viewer.shows(1, 0)
    nameless = viewer.page.eval_on_selector_all(
        "button, input, select",
        """all => all.filter((one) => !(one.textContent.trim() || one.getAttribute("aria-label")
            || one.labels?.length)).map((one) => one.outerHTML)""",
    )
    assert nameless == []
    assert viewer.page.get_attribute("html", "lang") == "en"
