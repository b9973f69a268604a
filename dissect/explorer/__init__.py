"""A notebook widget: move a control and see what would be pruned; measure it; try it on a prompt.

What is chosen (`choice`, `agreement`), measured (`bench`) and tried (`trial`) knows nothing of widgets; `controls`,
`panes` and `board` know nothing of models; `Explorer` binds them.
"""

from dissect.explorer.opening import explore
from dissect.explorer.session import Explorer

__all__ = ["Explorer", "explore"]
