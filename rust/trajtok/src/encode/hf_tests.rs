use super::*;
use crate::fixture::{TokenizerJson, metaspace_json};

fn encode(encoder: &HfEncoder, text: &str, start: usize) -> Tokens {
    let mut tokens = Tokens::default();
    encoder.encode_text(text, start, &mut tokens).unwrap();
    tokens
}

fn problem(json: &[u8]) -> String {
    HfEncoder::from_json(json, "some/tokenizer.json".to_owned()).err().unwrap().to_string()
}

#[test]
fn no_added_token_is_matched_in_text() {
    let encoder = TokenizerJson::default().encoder();
    for added in ["<|im_start|>", "<|im_end|>", "<tool_call>"] {
        let id = encoder.control_id(added).unwrap();
        assert_eq!(encoder.added_token(id), Some(added));
        let tokens = encode(&encoder, added, 3);
        assert_eq!(tokens.ids().len(), added.len());
        assert!(tokens.ids().iter().all(|&id| encoder.added_token(id).is_none()));
    }
}

#[test]
fn ids_are_those_of_hugging_face_on_ordinary_text() {
    let file = TokenizerJson::default();
    let mut reference = HfTokenizer::from_bytes(file.to_bytes()).unwrap();
    reference.with_truncation(None).unwrap(); // the file asks for it; rows are never truncated
    for text in ["hello", " hello  the\n\nthe ", "naïve 🙂 日本語", "\u{0}", "e\u{301}", "\r\n\t"] {
        let expected: Vec<TokenId> =
            reference.encode(text, false).unwrap().get_ids().iter().map(|&id| TokenId::try_from(id).unwrap()).collect();
        for start in [0, 7] {
            assert_eq!(encode(&file.encoder(), text, start).ids(), expected, "{text:?} at {start}");
        }
    }
}

#[test]
fn offsets_are_bytes_of_the_rendered_text() {
    let tokens = encode(&TokenizerJson::default().encoder(), "the ï", 10);
    assert_eq!(tokens.offsets(), [10..13, 13..14, 14..16, 14..16]);
}

#[test]
fn only_the_start_of_a_conversation_is_a_start() {
    let json = metaspace_json();
    let encoder = HfEncoder::from_json(json.as_bytes(), String::new()).unwrap();
    assert_eq!(encode(&encoder, "ab", 0).ids(), [3, 1, 2]);
    assert_eq!(encode(&encoder, "ab", 5).ids(), [1, 2]);
    assert_eq!(encode(&encoder, "ab", 5).offsets(), [5..6, 6..7]);
    let reference = HfTokenizer::from_bytes(json).unwrap();
    assert_eq!(reference.encode("<x>ab", false).unwrap().get_ids(), [4, 1, 2]);
}

#[test]
fn added_tokens_get_hugging_faces_ids_even_where_the_file_says_otherwise() {
    let json = metaspace_json().replace(r#""id":4"#, r#""id":9"#);
    let encoder = HfEncoder::from_json(json.as_bytes(), String::new()).unwrap();
    let reference = HfTokenizer::from_bytes(json).unwrap();
    let expected = reference.token_to_id("<x>").map(|id| TokenId::try_from(id).unwrap());
    assert_eq!(encoder.control_id("<x>"), expected);
}

#[test]
fn a_missing_or_malformed_file_is_named_with_the_remedy() {
    let missing = HfEncoder::from_file(Path::new("/nowhere/tokenizer.json")).err().unwrap().to_string();
    assert!(missing.starts_with("/nowhere/tokenizer.json: No such file"), "{missing}");
    for message in [missing, problem(b"{}"), problem(b"not json")] {
        assert!(message.contains("tokenizer.json: ") && message.contains("save_pretrained"), "{message}");
    }
}

#[test]
fn dropout_is_refused() {
    let message = problem(&TokenizerJson { dropout: Some(0.1), ..TokenizerJson::default() }.to_bytes());
    assert!(message.contains("model.dropout is 0.1"), "{message}");
}

#[test]
fn added_tokens_of_white_space_are_refused() {
    let message = problem(&TokenizerJson::default().with_added("  ", "normalized").to_bytes());
    assert!(message.contains("the added token \"  \" (id 262) is white space"), "{message}");
}

#[test]
fn control_tokens_that_strip_their_surroundings_are_told() {
    for flag in ["lstrip", "rstrip", "single_word"] {
        let encoder = TokenizerJson::default().with_added("<|x|>", flag).encoder();
        assert_eq!(encoder.unsupported_flag("<|x|>"), Some(flag));
    }
    let normalized = TokenizerJson::default().with_added("<|x|>", "normalized");
    assert_eq!(normalized.encoder().unsupported_flag("<|x|>"), None);
    let both = TokenizerJson { normalizer: Some("NFC"), ..normalized };
    assert_eq!(both.encoder().unsupported_flag("<|x|>"), Some("normalized"));
    assert_eq!(both.encoder().unsupported_flag("<|im_end|>"), None);
}
