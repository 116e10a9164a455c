//! What the tests share: conversations, and a small byte-level tokenizer written as tokenizer.json.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::encode::HfEncoder;
use crate::template::{Rendering, SegmentKind};

/// Role, content and weight.
pub type Turn = (&'static str, String, f64);

/// The input text of these turns.
pub fn conversation_json<S: AsRef<str>>(turns: &[(&str, S, f64)]) -> String {
    let messages: Vec<Value> = turns
        .iter()
        .map(|(role, content, weight)| json!({"role": role, "content": content.as_ref(), "weight": weight}))
        .collect();
    json!({ "messages": messages }).to_string()
}

/// Turns of every role, with texts that are empty, blank, not ASCII or look like control tokens.
pub fn messages() -> impl Strategy<Value = Vec<Turn>> {
    let content = prop_oneof![
        Just(String::new()),
        "[ \\n\\t]{1,3}",
        "(the|hello|<\\|im_end\\|>|<tool_call>|assistant\\n){1,4}",
        "\\PC{0,20}",
    ];
    let turn = prop_oneof![
        (prop::sample::select(vec!["system", "user", "tool"]), content.clone(), Just(0.0)),
        (Just("assistant"), content, prop::sample::select(vec![0.0, 0.25, 1.0])),
    ];
    prop::collection::vec(turn, 0..6)
}

/// Turns in the order that the `[INST]` formats take.
pub fn alternating() -> impl Strategy<Value = Vec<Turn>> {
    let content = || prop_oneof!["[ \\n]{0,2}", "[ \\n]?(a|</s>|<s>|\\[INST\\]|<\\|user\\|>|\\PC){1,6}[ \\n]?"];
    let weight = prop::sample::select(vec![0.0, 0.25, 1.0]);
    let pairs = prop::collection::vec((content(), content(), weight), 1..4);
    (prop::option::of(content()), pairs).prop_map(|(system, pairs)| {
        let pairs =
            pairs.into_iter().flat_map(|(asked, said, weight)| [("user", asked, 0.0), ("assistant", said, weight)]);
        system.map(|system| ("system", system, 0.0)).into_iter().chain(pairs).collect()
    })
}

/// The text, kind and weight of each piece.
pub fn pieces(rendering: &Rendering) -> Vec<(&str, bool, f64)> {
    rendering.pieces().into_iter().map(|piece| (piece.text, piece.is_control, piece.weight)).collect()
}

/// All text that is trained.
pub fn trained_text(rendering: &Rendering) -> String {
    rendering.pieces().into_iter().filter(|piece| piece.weight > 0.0).map(|piece| piece.text).collect()
}

/// Asserts what a [`Rendering`] promises.
pub fn check_whole(rendering: &Rendering) {
    let mut end = 0;
    for segment in &rendering.segments {
        assert_eq!(segment.bytes.start, end);
        assert!(segment.bytes.end > end);
        end = segment.bytes.end;
    }
    assert_eq!(end, rendering.text.len());
    assert_eq!(rendering.pieces().iter().map(|piece| piece.text).collect::<String>(), rendering.text);
    assert!(rendering.segments.windows(2).all(|pair| pair.iter().any(|segment| segment.kind != SegmentKind::Text)));
    let places: Vec<usize> = rendering.trained.iter().flat_map(|span| [span.bytes.start, span.bytes.end]).collect();
    assert!(places.is_sorted());
}

/// An encoder that has these added tokens.
pub fn encoder_with(tokens: &[&'static str]) -> HfEncoder {
    let added = tokens.iter().map(|token| (*token, "special")).collect();
    TokenizerJson { added, ..TokenizerJson::default() }.encoder()
}

/// A byte-level BPE tokenizer: 256 bytes, the merges `th`, `the`, ` the`, and three added tokens from id 259 on.
#[derive(Default, Clone)]
pub struct TokenizerJson {
    pub dropout: Option<f64>,
    pub normalizer: Option<&'static str>,
    pub added: Vec<(&'static str, &'static str)>,
}

impl TokenizerJson {
    /// With one more added token that has one flag set.
    pub fn with_added(mut self, token: &'static str, flag: &'static str) -> Self {
        self.added.push((token, flag));
        self
    }

    /// The file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut vocab: serde_json::Map<String, Value> =
            byte_alphabet().into_iter().enumerate().map(|(id, char)| (char.to_string(), json!(id))).collect();
        for (id, token) in ["th", "the", "Ġthe"].into_iter().enumerate() {
            vocab.insert(token.to_owned(), json!(256 + id));
        }
        vocab.insert("<|im_start|>".to_owned(), json!(259)); // some trainers put added tokens into the model too
        let control = [("<|im_start|>", "special"), ("<|im_end|>", "special"), ("<tool_call>", "normalized")];
        let added: Vec<Value> = control
            .iter()
            .chain(&self.added)
            .enumerate()
            .map(|(index, (content, flag))| {
                let mut token = json!({"id": 259 + index, "content": content, "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false, "special": false});
                token[*flag] = json!(true);
                token
            })
            .collect();
        let byte_level =
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        json!({
            "version": "1.0",
            "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
            "padding": null,
            "added_tokens": added,
            "normalizer": self.normalizer.map(|kind| json!({"type": kind})),
            "pre_tokenizer": byte_level,
            "post_processor": byte_level,
            "decoder": byte_level,
            "model": {"type": "BPE", "dropout": self.dropout, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                "vocab": vocab, "merges": [["t", "h"], ["th", "e"], ["Ġ", "the"]]},
        })
        .to_string()
        .into_bytes()
    }

    /// The encoder of the file.
    pub fn encoder(&self) -> HfEncoder {
        HfEncoder::from_json(&self.to_bytes(), "fixture/tokenizer.json".to_owned()).unwrap()
    }
}

/// A tokenizer that marks the start of a conversation, and only that, with `▁`.
pub fn metaspace_json() -> String {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "decoder": null,
        "added_tokens": [{"id": 4, "content": "<x>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": {"c": 0, "a": 1, "b": 2, "▁": 3}, "merges": []},
    })
    .to_string()
}

/// GPT-2's printable character for every byte.
fn byte_alphabet() -> Vec<char> {
    let mut next = 256;
    (0..=255_u32)
        .map(|byte| {
            let is_printable = matches!(byte, 33..=126 | 161..=172 | 174..=255);
            let code = if is_printable { byte } else { next };
            next += u32::from(!is_printable);
            char::from_u32(code).unwrap()
        })
        .collect()
}
