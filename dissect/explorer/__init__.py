"""A notebook widget: move a control and see what would be pruned; measure it; try it on a prompt.

What is chosen (`choice`, `agreement`), measured (`evaluator`) and tried (`trial`) is independent of widgets;
`controls`, `panes` and `board` are independent of models; `Explorer` connects them.
"""

from dissect.explorer.explore import explore
from dissect.explorer.explorer import Explorer

__all__ = ["Explorer", "explore"]
