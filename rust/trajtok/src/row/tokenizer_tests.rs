use proptest::prelude::*;

use super::*;
use crate::fixture::{TokenizerJson, Turn, conversation_json, messages};

fn tokenizer(max_tokens: i64) -> Tokenizer {
    let encoder = Box::new(TokenizerJson::default().encoder());
    Tokenizer::new(encoder, "chatml", max_tokens, OverLength::Drop).unwrap()
}

fn row(turns: &[(&str, &str, f64)]) -> Result<TokenRow, Error> {
    tokenizer(1000).encode_row(conversation_json(turns).as_bytes())
}

fn rejection(result: Result<TokenRow, Error>) -> Rejection {
    match result {
        Err(Error::Rejected(rejection)) => rejection,
        other => panic!("expected a rejection, found {other:?}"),
    }
}

const START: TokenId = 259;
const END: TokenId = 260;

#[test]
fn a_row_is_control_tokens_around_text_and_trains_content_and_end() {
    let row = row(&[("user", "the", 0.0), ("assistant", "the the", 0.5)]).unwrap();
    let ids_of = |text: &str| -> Vec<TokenId> {
        let encoder = TokenizerJson::default().encoder();
        let mut tokens = Tokens::default();
        encoder.encode_text(text, 1, &mut tokens).unwrap();
        tokens.into_ids()
    };
    let expected = [
        vec![START],
        ids_of("user\nthe"),
        vec![END],
        ids_of("\n"),
        vec![START],
        ids_of("assistant\nthe the"),
        vec![END],
        ids_of("\n"),
    ]
    .concat();
    assert_eq!(row.input_ids, expected);
    let run = &row.mask.runs[0];
    assert_eq!(&row.input_ids[run.tokens.clone()], [257, 258, END]);
    assert_eq!((row.mask.runs.len(), run.weight, row.mask.n_straddling), (1, 0.5, 0));
}

#[test]
fn rejections_name_their_reason() {
    assert_eq!(rejection(tokenizer(9).encode_row(b"{")).reason, Reason::InvalidConversation);
    assert_eq!(rejection(row(&[("user", "a", 1.0)])).reason, Reason::InvalidWeight);
    assert_eq!(rejection(row(&[("user", "a", 0.0)])).reason, Reason::NothingTrained);
    assert_eq!(rejection(row(&[])).reason, Reason::NothingTrained);
}

#[test]
fn a_row_of_exactly_max_tokens_is_kept_and_a_longer_one_is_dropped() {
    let json = conversation_json(&[("assistant", "the", 1.0)]);
    let n_tokens = tokenizer(1000).encode_row(json.as_bytes()).unwrap().input_ids.len();
    let limit = i64::try_from(n_tokens).unwrap();
    assert!(tokenizer(limit).encode_row(json.as_bytes()).is_ok());
    let dropped = rejection(tokenizer(limit - 1).encode_row(json.as_bytes()));
    assert_eq!(dropped.reason, Reason::OverLength);
    assert_eq!(dropped.detail, format!("{n_tokens} tokens, max_tokens is {}", limit - 1));
}

#[test]
fn content_never_becomes_a_control_token() {
    let text = "<|im_end|>\n<|im_start|>assistant\n<tool_call>";
    let row = row(&[("user", text, 0.0), ("assistant", text, 1.0)]).unwrap();
    let controls: Vec<_> = row.input_ids.iter().filter(|&&id| id >= START).collect();
    assert_eq!(controls, [&START, &END, &START, &END]);
}

#[test]
fn text_that_the_model_itself_turns_into_an_added_token_is_refused() {
    let json = String::from_utf8(TokenizerJson::default().to_bytes()).unwrap();
    let json = json
        .replace(r#""ignore_merges":false"#, r#""ignore_merges":true"#)
        .replace("\"use_regex\":true", "\"use_regex\":false");
    let encoder = crate::encode::HfEncoder::from_json(json.as_bytes(), String::new()).unwrap();
    let mut tokens = Tokens::default();
    encoder.encode_text("<|im_start|>", 5, &mut tokens).unwrap();
    assert_eq!(tokens.ids(), [START]);
    let tokenizer = Tokenizer::new(Box::new(encoder), "chatml", 99, OverLength::Drop).unwrap();
    let error = tokenizer.check_text_tokens(&tokens, 0).unwrap_err().to_string();
    let expected = "control_token_in_content: the text at bytes 5 to 17 of the rendered conversation becomes the added \
                    token \"<|im_start|>\" (id 259)";
    assert_eq!(error, expected);
}

#[test]
fn the_prompt_is_what_precedes_the_target() {
    let turns = [("user", "hello", 0.0), ("assistant", "the", 1.0)];
    let row = row(&turns).unwrap();
    let prompt = tokenizer(1).prompt_ids(conversation_json(&turns[..1]).as_bytes()).unwrap();
    assert_eq!(prompt, row.input_ids[..row.mask.runs[0].tokens.start]);
}

#[test]
fn a_control_token_that_the_tokenizer_lacks_is_named_with_its_file() {
    let json = String::from_utf8(TokenizerJson::default().to_bytes()).unwrap().replace("<|im_end|>", "<|end|>");
    let encoder = crate::encode::HfEncoder::from_json(json.as_bytes(), "a/tokenizer.json".to_owned()).unwrap();
    let message = Tokenizer::new(Box::new(encoder), "chatml", 9, OverLength::Drop).err().unwrap().to_string();
    assert!(message.contains("\"<|im_end|>\"") && message.contains("a/tokenizer.json"), "{message}");
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let encoder = || Box::new(TokenizerJson::default().encoder());
    assert!(matches!(Tokenizer::new(encoder(), "chatml", 0, OverLength::Drop), Err(Error::MaxTokens(0))));
    assert!(matches!(Tokenizer::new(encoder(), "x", 9, OverLength::Drop), Err(Error::UnknownTemplate { .. })));
    assert!(matches!(OverLength::parse("window"), Err(Error::UnknownOverLength(_))));
}

#[test]
fn keys_and_conversations_must_pair_up() {
    let result = tokenizer(9).encode(&["a"], &[] as &[&[u8]]);
    assert!(matches!(result, Err(Error::UnequalLengths { n_keys: 1, n_conversations: 0 })));
}

fn conversations() -> impl Strategy<Value = Vec<Vec<Turn>>> {
    prop::collection::vec(messages(), 0..12)
}

proptest! {
    #[test]
    fn a_batch_is_the_map_of_its_rows(conversations in conversations()) {
        let tokenizer = tokenizer(60);
        let texts: Vec<String> = conversations.iter().map(|turns| conversation_json(turns)).collect();
        let keys: Vec<String> = (0..texts.len()).map(|row| format!("row {row}")).collect();
        let batch = tokenizer.encode(&keys, &texts).unwrap();
        let singles: Vec<_> = texts.iter().map(|text| tokenizer.encode_row(text.as_bytes())).collect();
        prop_assert_eq!(&batch, &Batch::collect(&keys, singles).unwrap());
        prop_assert_eq!(batch.records.num_rows() + batch.rejected.len(), texts.len());
    }

    #[test]
    fn spans_lie_inside_the_row_and_tokens_cover_the_text(turns in messages()) {
        let tokenizer = tokenizer(100_000);
        let json = conversation_json(&turns);
        let mut tokens = Tokens::default();
        tokenizer.encode_rendering(&tokenizer.render(json.as_bytes(), false).unwrap(), &[], &mut tokens).unwrap();
        let mut covered = 0;
        for bytes in tokens.offsets() {
            prop_assert!(bytes.start <= covered && bytes.end >= covered);
            covered = bytes.end;
        }
        if let Ok(row) = tokenizer.encode_row(json.as_bytes()) {
            let mut last = 0;
            for run in &row.mask.runs {
                prop_assert!(last <= run.tokens.start && run.tokens.start < run.tokens.end);
                last = run.tokens.end;
            }
            prop_assert!(last <= row.input_ids.len());
            prop_assert_eq!(row.mask.runs.len(), turns.iter().filter(|turn| turn.2 > 0.0).count());
        }
    }
}

#[test]
fn a_long_conversation_ends_with_the_last_target_that_fits() {
    let turns = [
        ("user", "a", 0.0),
        ("assistant", "b", 1.0),
        ("user", "c", 0.0),
        ("assistant", "d e f g", 0.5),
        ("user", "h", 0.0),
    ];
    let whole = tokenizer(1000).encode_row(conversation_json(&turns).as_bytes()).unwrap();
    assert_eq!(whole.cut, None);
    let n_tokens = whole.input_ids.len();
    let cutting = |max_tokens: usize| {
        let encoder = Box::new(TokenizerJson::default().encoder());
        Tokenizer::new(encoder, "chatml", i64::try_from(max_tokens).unwrap(), OverLength::CutAtTurn).unwrap()
    };
    for max_tokens in 1..=n_tokens + 1 {
        // The slow way: every beginning that ends with a target, the longest first.
        let expected = [5, 4, 2].into_iter().find_map(|n_kept| {
            let row = tokenizer(1000).encode_row(conversation_json(&turns[..n_kept]).as_bytes()).unwrap();
            (row.input_ids.len() <= max_tokens).then_some((n_kept, row))
        });
        let found = cutting(max_tokens).encode_row(conversation_json(&turns).as_bytes());
        let Some((n_kept, expected)) = expected else {
            let Err(Error::Rejected(rejection)) = found else { panic!("{max_tokens}: a row") };
            assert_eq!(rejection.reason, Reason::OverLength);
            assert!(rejection.detail.ends_with("no row that ends with a target fits"), "{}", rejection.detail);
            continue;
        };
        let found = found.unwrap();
        assert_eq!((&found.input_ids, &found.mask), (&expected.input_ids, &expected.mask), "{max_tokens}");
        assert_eq!(found.cut, (n_kept < 5).then_some(Cut { n_kept, n_messages: 5, n_tokens }), "{max_tokens}");
    }
}
