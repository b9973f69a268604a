"""The explorer's texts as HTML; text from outside is escaped by jinja2."""

from __future__ import annotations

from functools import cache

from jinja2 import Template
from markupsafe import Markup

from dissect.evaluation.continuation import Reading
from dissect.explorer.trial import Trial
from dissect.style.html import environment, printed
from dissect.style.theme import FONT, NEGATIVE, RUNS, get_theme

MOST = 8.0  # nats: a token of this loss or more has the full shade

STYLE = """
<style>
.dissect-explorer { background: {{ look.paper }}; color: {{ look.text }}; font-family: {{ font }}; padding: 12px;
  --jp-widgets-label-color: {{ look.text }}; --jp-widgets-readout-color: {{ look.text }};
  --jp-widgets-input-color: {{ look.text }}; --jp-widgets-input-background-color: {{ look.paper }};
  --jp-widgets-input-border-color: {{ look.units }}; --jp-border-color1: {{ look.units }};
  --jp-layout-color1: {{ look.paper }}; --jp-layout-color2: {{ look.grid }}; --jp-layout-color3: {{ look.units }};
  --jp-ui-font-color1: {{ look.text }}; --jp-content-font-color1: {{ look.text }}; }
.dissect-explorer .widget-html-content { color: {{ look.text }}; line-height: 1.45; font-size: 13px; }
.dissect-explorer .faint { color: {{ look.faint }}; font-size: 12px; }
.dissect-explorer .refused { border-left: 3px solid {{ alert }}; padding: 2px 10px; white-space: pre-wrap; }
.dissect-explorer .reading { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.6;
  font: 12.5px/1.6 ui-monospace, Menlo, Consolas, monospace; }
.dissect-explorer .reading .next { border-bottom: 2px solid {{ look.faint }}; }
.{{ hidden }} { display: none; }
.dissect-explorer h4 { margin: 0 0 4px; font-size: 14px; }
.dissect-explorer .swatch { display: inline-block; width: 90px; height: 9px;
  background: linear-gradient(90deg, transparent, rgba({{ rgb }}, 0.75)); border: 1px solid {{ look.units }}; }
</style>
"""

READING = """
<h4>{{ title }}</h4>
<p class="faint">prompt: {{ "%.3f" | format(reading.prompt_loss) }} nats per token</p>
<div class="reading">{% for text, loss, is_next in tokens -%}
<span {% if is_next %}class="next" {% endif %}style="background:rgba({{ rgb }}, {{ "%.2f" | format(depth(loss)) }})"
 title="loss {{ "%.2f" | format(loss) }} nats">{{ text }}</span>
{%- endfor %}</div>
"""

KEY = """
<p class="faint">Shade: loss of the token, 0 <span class="swatch"></span> {{ "%g" | format(most) }} nats or more.
Underlined: the greedy continuation. {{ note }}</p>
"""


STAND_IN = """
<p class="{{ name }}">{{ said }} This explorer is a widget: run its cell in Jupyter to use it.</p>
"""


def style(theme: str, hidden: str) -> str:
    """The style of the explorer; inside it, it overrides the theme of the notebook.

    An element of the class `hidden` is seen only where the explorer is not.
    """
    return _template(STYLE).render(look=get_theme(theme), font=FONT, alert=RUNS[2], rgb=NEGATIVE, hidden=hidden)


def stand_in(said: str, name: str) -> str:
    """The text, with the class `name`, in place of an explorer that has no kernel."""
    return _template(STAND_IN).render(said=said, name=name)


def paragraph(text: str, kind: str = "") -> str:
    """Plain text as a paragraph; `kind` is `faint` or `refused`."""
    return str(Markup('<div class="{}">{}</div>').format(kind, text))


def reading(title: str, found: Reading) -> str:
    """A prompt and its continuation as HTML, each token shaded by its loss."""
    tokens = [
        (printed(text), loss, place >= found.n_prompt)
        for place, (text, loss) in enumerate(zip(found.tokens, found.losses, strict=True))
    ]
    return _template(READING).render(title=title, reading=found, tokens=tokens, rgb=NEGATIVE, depth=_depth)


def key(trial: Trial) -> str:
    """What the shades mean, and how much pruning changes the loss of the prompt."""
    change = trial.pruned.prompt_loss - trial.unpruned.prompt_loss
    note = f"Pruning changes the prompt's loss by {change:+.3f} nats per token.".replace("-", "−")
    return _template(KEY).render(most=MOST, note=note)


def _depth(loss: float) -> float:
    return 0.75 * min(1.0, max(0.0, loss) / MOST)


@cache
def _template(source: str) -> Template:
    return environment().from_string(source)
