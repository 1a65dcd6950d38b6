"""Our games under the name by which verifiers finds them: `taskset.id = "actfocus-games"`.

verifiers, and trainers that start it, import a taskset as a top-level module; the games themselves are in
`actfocus.integrations.verifiers`.
"""

from actfocus.integrations.verifiers import *  # noqa: F403
from actfocus.integrations.verifiers import __all__ as __all__
