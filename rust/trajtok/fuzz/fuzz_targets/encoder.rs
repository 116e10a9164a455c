//! Any text through the native encoder: ids and masks are Hugging Face's, and both ways of asking agree.
//!
//! `TRAJTOK_TOKENIZERS=a/tokenizer.json:b/tokenizer.json cargo fuzz run encoder`

#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use trajtok::{Encoder, HfEncoder, Tokens, TrainedBytes, load_encoder, mask_tokens};

static PAIRS: LazyLock<Vec<(Box<dyn Encoder>, HfEncoder)>> = LazyLock::new(|| {
    let paths = std::env::var("TRAJTOK_TOKENIZERS").expect("TRAJTOK_TOKENIZERS names tokenizer.json files");
    let load = |path: &str| {
        let native = load_encoder(Path::new(path)).expect("the tokenizer loads");
        assert_eq!(native.note(), None, "{path} is not covered natively");
        (native, HfEncoder::from_file(Path::new(path)).expect("the tokenizer loads"))
    };
    paths.split(':').map(load).collect()
});

fuzz_target!(|input: (bool, &str)| {
    let (is_first, text) = input;
    if text.is_empty() {
        return;
    }
    let start = if is_first { 0 } else { 9 };
    for (native, hf) in PAIRS.iter() {
        let (mut ours, mut theirs, mut ids) = (Tokens::default(), Tokens::default(), Vec::new());
        native.encode_text(text, start, &mut ours).expect("every text has tokens");
        hf.encode_text(text, start, &mut theirs).expect("every text has tokens");
        assert_eq!(ours.ids(), theirs.ids(), "{}: {text:?}", native.origin());
        // What a token covers matters for the mask alone: it is Hugging Face's wherever a target begins or ends.
        for (border, _) in text.char_indices().skip(1) {
            for bytes in [start..start + border, start + border..start + text.len()] {
                let trained = [TrainedBytes { bytes, weight: 1.0 }];
                assert_eq!(mask_tokens(&ours, &trained), mask_tokens(&theirs, &trained), "{}: {text:?}", native.origin());
            }
        }
        if is_first {
            native.encode_ids(text, &mut ids).expect("every text has tokens");
            assert_eq!(ids, ours.ids(), "{}: {text:?}", native.origin());
        }
    }
});
