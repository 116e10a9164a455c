//! The fixed texts of Qwen3's template, and which control tokens may stand in them.

use crate::encode::Encoder;
use crate::template::native::wording::{Controls, Wording};

const CONTROLS: [&str; 2] = ["<|im_start|>", "<|im_end|>"];
const OPTIONAL: [&str; 8] = [
    "<think>",
    "</think>",
    "<tools>",
    "</tools>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
];
/// What switched-off thinking writes into the generation prompt.
pub const NO_THINK: &str = "<think>\n\n</think>\n\n";

/// `ChatML`'s two, and of the marks around reasoning and tools those that the tokenizer has.
pub fn controls(encoder: &dyn Encoder) -> Controls {
    Controls::new(&CONTROLS, &OPTIONAL, encoder)
}

/// Its fixed texts.
pub struct Wordings {
    pub system: Wording,
    pub tools: Wording,
    pub end_tools: Wording,
    pub user: Wording,
    pub assistant: Wording,
    pub think: Wording,
    pub end_think: Wording,
    pub call: Wording,
    pub arguments: Wording,
    pub end_call: Wording,
    pub responses: Wording,
    pub response: Wording,
    pub end_response: Wording,
    pub end: Wording,
}

impl Wordings {
    /// Cuts them.
    pub fn new(controls: &Controls) -> Self {
        Self {
            system: controls.cut("<|im_start|>system\n"),
            tools: controls.cut(
                "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with \
                 function signatures within <tools></tools> XML tags:\n<tools>",
            ),
            end_tools: controls.cut(
                "\n</tools>\n\nFor each function call, return a json object with function name and arguments within \
                 <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": \
                 <args-json-object>}\n</tool_call>",
            ),
            user: controls.cut("<|im_start|>user\n"),
            assistant: controls.cut("<|im_start|>assistant\n"),
            think: controls.cut("<think>\n"),
            end_think: controls.cut("\n</think>\n\n"),
            call: controls.cut("<tool_call>\n{\"name\": \""),
            arguments: controls.cut("\", \"arguments\": "),
            end_call: controls.cut("}\n</tool_call>"),
            responses: controls.cut("<|im_start|>user"),
            response: controls.cut("\n<tool_response>\n"),
            end_response: controls.cut("\n</tool_response>"),
            end: controls.cut("<|im_end|>"),
        }
    }
}
