"""Registry of chat templates: name -> how a conversation is written as text.

trajtok renders natively; these plain Python renderings are what it is proved against.
"""

from negtraj_dagster.chat_templates.chatml import CHATML, ChatTemplate

TEMPLATES: dict[str, ChatTemplate] = {CHATML.name: CHATML}
