//! The engine for Llama 3, Qwen, GPT-2 and `DeepSeek`: the fastokens crate, stripped of all that could match an added token,
//! change the text or add to the ids.

use serde_json::{Value, json};

/// fastokens' pre-tokenizer and model of a file.
pub struct FastEngine(fastokens::Tokenizer);

impl FastEngine {
    /// Takes the pre-tokenizer and the model of a tokenizer.json.
    ///
    /// # Errors
    /// Why fastokens does not take the file.
    pub fn new(json: &[u8]) -> Result<Self, String> {
        let read = || -> Result<_, Box<dyn std::error::Error>> {
            let mut file: Value = serde_json::from_slice(json)?;
            file["added_tokens"] = json!([]);
            // Its tables of NFC are newer than those of `tokenizers`: only text that NFC leaves alone comes here.
            for step in ["normalizer", "post_processor", "truncation", "padding"] {
                file[step] = Value::Null;
            }
            Ok(fastokens::Tokenizer::from_json(file)?)
        };
        read().map(Self).map_err(|problem| format!("the native encoder does not load it ({problem})"))
    }

    /// The ids of a text; None where there are none for it.
    pub fn encode(&self, text: &str) -> Option<Vec<u32>> {
        self.0.encode_ordinary(text).ok()
    }
}
