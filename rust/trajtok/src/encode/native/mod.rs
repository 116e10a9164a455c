//! The native encoder: byte-pair encoding for the pre-tokenizers of widespread models, exact and fast.
//!
//! One of two engines encodes: fastokens ([`crate::fast`]) or our own ([`crate::own`]), whichever is the faster one for the
//! family. What neither covers (text that NFC changes, a byte without a token) goes to Hugging Face's own encoder, and so
//! does everything else if the probes of [`crate::probes`] find a single difference when the tokenizer is loaded.

mod fast;
mod merge;
mod output;
mod own;
mod pairs;
mod probes;
mod scan;
mod text;
mod tokenizer_json;
mod unicode;
mod unicode_tables;
mod words;
mod worker;

use unicode_normalization_alignments::{IsNormalized, is_nfc_quick};

use crate::encode::encoder::Encoder;
use crate::encode::hf::HfEncoder;
use crate::encode::native::fast::FastEngine;
use crate::encode::native::output::{Ids, Output, Placed};
use crate::encode::native::own::OwnEngine;
use crate::encode::native::probes::probes;
use crate::encode::native::tokenizer_json::{Family, NONE, TokenizerJson, Unsupported};
use crate::encode::tokens::{TokenId, Tokens};
use crate::error::Error;

/// What splits a text into words and merges their bytes.
enum Engine {
    Fast(Box<FastEngine>),
    Own(Box<OwnEngine>),
}

/// Byte-pair encoding without Hugging Face's code, but with its ids.
pub struct NativeEncoder {
    hf: HfEncoder,
    family: Family,
    is_nfc: bool,
    /// Text begins with a space that is not there.
    is_prefixed: bool,
    /// Whether each byte has a token.
    has_token: [bool; 256],
    engine: Engine,
    /// How many bytes of text each token covers.
    lengths: Vec<u16>,
    /// The token of each ASCII character that stands alone, of byte-level families.
    single: Option<[u32; 128]>,
    /// Whether the model's own vocabulary holds an added token, so that text may become one.
    holds_added: bool,
}

impl NativeEncoder {
    /// Takes over from Hugging Face's encoder of the same file.
    ///
    /// # Errors
    /// The encoder unchanged, and why it has to go on.
    pub fn new(json: &[u8], hf: HfEncoder) -> Result<Self, Box<(HfEncoder, String)>> {
        let file = match TokenizerJson::parse(json) {
            Ok(file) => file,
            Err(Unsupported(why)) => return Err(Box::new((hf, why))),
        };
        let (engine, lengths) = match engine_of(&file, json).and_then(|engine| Ok((engine, file.lengths()?))) {
            Ok(both) => both,
            Err(why) => return Err(Box::new((hf, why))),
        };
        let ids: Vec<TokenId> = file.ids.iter().map(|id| id.cast_signed()).collect();
        let encoder = Self {
            holds_added: hf.find_added(&ids).is_some(),
            hf,
            family: file.family,
            is_nfc: file.is_nfc,
            is_prefixed: file.is_prefixed,
            has_token: file.bytes.map(|id| id != NONE),
            single: file.single(),
            engine,
            lengths,
        };
        match encoder.find_difference() {
            None => Ok(encoder),
            Some(probe) => {
                Err(Box::new((encoder.hf, format!("the native encoder's ids differ from Hugging Face's on {probe:?}"))))
            }
        }
    }

    /// The first probe, if any, on which the two encoders differ.
    fn find_difference(&self) -> Option<String> {
        let mut ours = Tokens::default();
        let mut theirs = Tokens::default();
        for probe in probes() {
            for start in [0, 7] {
                ours.clear();
                theirs.clear();
                let results =
                    (self.encode_text(&probe, start, &mut ours), self.hf.encode_text(&probe, start, &mut theirs));
                let is_same = match results {
                    (Ok(()), Ok(())) => ours.ids() == theirs.ids(),
                    (Err(_), Err(_)) => true,
                    _ => false,
                };
                if !is_same {
                    return Some(probe);
                }
            }
        }
        None
    }

    /// Whether the fast path covers the text.
    fn is_covered(&self, text: &str) -> bool {
        if text.len() > LONGEST_TEXT {
            return false;
        }
        if text.is_ascii() && !self.family.lacks_bytes() {
            return true;
        }
        if self.is_nfc && !is_surely_nfc(text) {
            return false;
        }
        if self.family == Family::SentencePiece {
            // A text's own lower block is a space to `SentencePiece`: the scanner knows one kind of space only.
            return !text.contains('\u{2581}');
        }
        self.find_lost(text).is_none()
    }

    /// Encodes a text into `output`; false, and nothing is, where Hugging Face's encoder has to.
    fn encode(&self, text: &str, output: &mut impl Output) -> bool {
        if let (Some(single), &[byte @ ..0x80]) = (&self.single, text.as_bytes())
            && single[usize::from(byte)] != NONE
        {
            output.push(single[usize::from(byte)], 0..1);
            return true;
        }
        if !self.is_covered(text) {
            return false;
        }
        match &self.engine {
            Engine::Own(engine) => engine.encode(text, output),
            Engine::Fast(engine) => {
                return engine.encode(text).is_some_and(|ids| output.push_text(&ids, text.len()));
            }
        }
        true
    }
}

/// Longer texts go to Hugging Face's encoder: places are 32 bits here.
const LONGEST_TEXT: usize = 1 << 31;

/// Whether NFC certainly leaves a text alone.
fn is_surely_nfc(text: &str) -> bool {
    const BLOCK: usize = 64;
    // Every character that is not steady has a byte of 0xCC or above: whole blocks without one are passed over.
    let is_plain = |block: &[u8]| block.iter().fold(0, |highest: u8, byte| highest.max(*byte)) < 0xCC;
    let border = |at: usize| (at..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    let is_steady = |at: usize| text[border(at)..border(at + BLOCK)].chars().all(is_steady);
    let mut blocks = (0..).step_by(BLOCK).zip(text.as_bytes().chunks(BLOCK));
    blocks.all(|(at, block)| is_plain(block) || is_steady(at)) || is_nfc_quick(text.chars()) == IsNormalized::Yes
}

/// Characters of frequent blocks that NFC never changes and that combine with nothing before them.
fn is_steady(char: char) -> bool {
    matches!(
        char,
        '\0'..='\u{2ff}' | '\u{2010}'..='\u{205f}' | '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fa}'
            | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}'
    )
}

fn engine_of(file: &TokenizerJson, json: &[u8]) -> Result<Engine, String> {
    if file.family.is_own() {
        return OwnEngine::new(file).map(|engine| Engine::Own(Box::new(engine)));
    }
    FastEngine::new(json).map(|engine| Engine::Fast(Box::new(engine)))
}

impl Encoder for NativeEncoder {
    fn name(&self) -> &'static str {
        self.family.name()
    }

    fn origin(&self) -> &str {
        self.hf.origin()
    }

    fn encode_text(&self, text: &str, start: usize, tokens: &mut Tokens) -> Result<(), Error> {
        let n_prefix = usize::from(self.is_prefixed);
        let first_end = text.chars().next().map_or(0, char::len_utf8);
        let mut output = Placed { tokens, lengths: &self.lengths, start, n_prefix, first_end };
        if self.encode(text, &mut output) { Ok(()) } else { self.hf.encode_text(text, start, tokens) }
    }

    fn encode_ids(&self, text: &str, ids: &mut Vec<TokenId>) -> Result<(), Error> {
        if text.is_empty() || self.encode(text, &mut Ids(ids)) { Ok(()) } else { self.hf.encode_ids(text, ids) }
    }

    fn control_id(&self, token: &str) -> Option<TokenId> {
        self.hf.control_id(token)
    }

    fn added_token(&self, id: TokenId) -> Option<&str> {
        self.hf.added_token(id)
    }

    fn added_tokens(&self) -> Vec<(String, bool)> {
        self.hf.added_tokens()
    }

    fn find_added(&self, ids: &[TokenId]) -> Option<usize> {
        if self.holds_added { self.hf.find_added(ids) } else { None }
    }

    fn find_lost(&self, text: &str) -> Option<usize> {
        let is_lost = |byte: u8| !self.has_token[usize::from(byte)];
        if self.family.lacks_bytes() { text.bytes().position(is_lost) } else { None }
    }

    fn unsupported_flag(&self, token: &str) -> Option<&'static str> {
        self.hf.unsupported_flag(token)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixture::TokenizerJson;

    fn encoders(json: &[u8], hf_json: &[u8]) -> Result<NativeEncoder, String> {
        let hf = HfEncoder::from_json(hf_json, "tokenizer.json".to_owned()).unwrap();
        NativeEncoder::new(json, hf).map_err(|refused| refused.1)
    }

    #[test]
    fn one_other_id_on_a_probe_and_hugging_face_encodes() {
        let right = TokenizerJson::default().to_bytes();
        let text = String::from_utf8(right.clone()).unwrap();
        let wrong = text.replace(r#""th":256,"the":257"#, r#""th":257,"the":256"#);
        assert_ne!(text, wrong, "the fixture writes its vocabulary otherwise");
        assert!(encoders(&right, &right).is_ok());
        let why = encoders(wrong.as_bytes(), &right).err().unwrap();
        assert!(why.starts_with("the native encoder's ids differ from Hugging Face's on "), "{why}");
    }

    #[test]
    fn tokens_that_do_not_cover_their_text_are_not_taken() {
        let mut tokens = Tokens::default();
        tokens.push(9, 0..2);
        let mut output = Placed { tokens: &mut tokens, lengths: &[1, 2], start: 2, n_prefix: 0, first_end: 1 };
        assert!(!output.push_text(&[0, 1, 1], 4));
        assert!(!output.push_text(&[0, 7], 2));
        assert!(output.push_text(&[0, 1], 3));
        assert_eq!((tokens.ids(), tokens.offsets()), (&[9, 0, 1][..], &[0..2, 2..3, 3..5][..]));
    }

    #[test]
    fn steady_characters_are_starters_that_nfc_leaves_alone() {
        use unicode_normalization_alignments::char::canonical_combining_class;
        for char in ('\0'..=char::MAX).filter(|char| is_steady(*char)) {
            assert_eq!(is_nfc_quick(std::iter::once(char)), IsNormalized::Yes, "{char:?}");
            assert_eq!(canonical_combining_class(char), 0, "{char:?}");
        }
    }

    proptest! {
        #[test]
        fn blocks_that_are_passed_over_change_nothing(
            parts in prop::collection::vec(("[a-z]{0,70}", "[\u{300}-\u{316}é\u{c9}’한中\u{1100}\u{1161}a\u{212b}]{0,3}"), 0..8),
        ) {
            let text: String = parts.iter().flat_map(|(plain, other)| [plain.as_str(), other]).collect();
            prop_assert_eq!(is_surely_nfc(&text), is_nfc_quick(text.chars()) == IsNormalized::Yes);
        }
    }
}
