"""Registry of chat templates: how a conversation is written as text.

trajtok renders; the renderings in plain Python and in Jinja here are what it is proved against. A recipe names a native
template, `base_model` (the base model's own chat template) or a file of Jinja text.
"""

from negtraj_dagster.chat_templates.base import ChatTemplate, EmptyThink, NativeTemplate, Render, make_template
from negtraj_dagster.chat_templates.jinja import jinja_render
from negtraj_dagster.chat_templates.plain import CHATML, LLAMA2, LLAMA3, MISTRAL, NAT_EXACT, ZEPHYR
from negtraj_dagster.chat_templates.qwen3 import QWEN3
from negtraj_dagster.chat_templates.served import served_render

NATIVE: dict[str, NativeTemplate] = {
    "chatml": CHATML,
    "llama2": LLAMA2,
    "llama3": LLAMA3,
    "mistral": MISTRAL,
    "nat_exact": NAT_EXACT,
    "qwen3": QWEN3,
    "zephyr": ZEPHYR,
}
VERSIONS: dict[str, int] = {name: template.version for name, template in NATIVE.items()}


def reference_render(template: ChatTemplate) -> Render:
    """The template's rendering without trajtok.

    Raises:
        SettingsError: Jinja cannot compile the template.
    """
    if template.jinja is None:
        return NATIVE[template.name].render(template.variables())
    return jinja_render(template.jinja, template.variables(), name=template.name)


__all__ = [
    "NATIVE",
    "VERSIONS",
    "ChatTemplate",
    "EmptyThink",
    "NativeTemplate",
    "Render",
    "make_template",
    "reference_render",
    "served_render",
]
