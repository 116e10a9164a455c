//! What a tokenizer.json says, as far as the native encoder covers it; anything else is [`Unsupported`] with the reason.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Value, json};

/// No token.
pub const NONE: u32 = u32::MAX;

/// Why Hugging Face's encoder has to be used.
pub struct Unsupported(pub String);

/// How the text is split into words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama 3: three digits at a time.
    Llama3,
    /// Qwen 2, 2.5 and 3: digit by digit.
    Qwen2,
    /// Qwen 3.5 and its heirs: marks belong to words.
    Qwen35,
    /// GPT-4o and GPT-OSS: words by their capitals, with their contraction.
    O200k,
    /// Mistral Nemo and its heirs: words by their capitals, digit by digit.
    Tekken,
    /// GPT-2 and its heirs.
    Gpt2 {
        /// Some bytes have no token.
        lacks_bytes: bool,
    },
    /// `SmolLM`: GPT-2's with single digits.
    SmolLm {
        /// Some bytes have no token.
        lacks_bytes: bool,
    },
    /// `DeepSeek` V3 and V4.
    DeepSeek,
    /// Llama 2, Mistral v1 and Gemma: `SentencePiece` with byte fallback.
    SentencePiece,
}

impl Family {
    /// The engine and the family, for reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama3 => "fastokens llama3",
            Self::Qwen2 => "fastokens qwen2",
            Self::Qwen35 => "fastokens qwen3.5",
            Self::O200k => "fastokens o200k",
            Self::Tekken => "fastokens tekken",
            Self::Gpt2 { .. } => "fastokens gpt2",
            Self::SmolLm { .. } => "trajtok smollm",
            Self::DeepSeek => "fastokens deepseek",
            Self::SentencePiece => "trajtok sentencepiece",
        }
    }

    /// Whether our own engine is the fastest exact one.
    pub fn is_own(self) -> bool {
        matches!(self, Self::SmolLm { .. } | Self::SentencePiece)
    }

    /// Whether some bytes have no token.
    pub fn lacks_bytes(self) -> bool {
        matches!(self, Self::Gpt2 { lacks_bytes: true } | Self::SmolLm { lacks_bytes: true })
    }
}

/// A tokenizer.json that the native encoder covers.
pub struct TokenizerJson {
    /// How the text is split into words.
    pub family: Family,
    /// Text is brought to NFC first.
    pub is_nfc: bool,
    /// Text begins with a space that is not there.
    pub is_prefixed: bool,
    /// A word of the vocabulary is its token, whatever the merges say.
    pub ignore_merges: bool,
    /// Every id that the model's vocabulary holds, whatever it is written in: an unknown token is one of them.
    pub ids: Vec<u32>,
    /// The bytes of text that each token of the model covers (▁ is a space), and its id.
    pub words: Vec<(Vec<u8>, u32)>,
    /// The token of each byte, all ones where there is none.
    pub bytes: [u32; 256],
    /// `(left, right, made)` by rank, for our own engine alone.
    pub merges: Vec<(u32, u32, u32)>,
}

#[derive(Deserialize)]
struct File {
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    r#type: Option<String>,
    dropout: Option<f64>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Line(String),
}

impl Merge {
    fn pair(&self) -> Option<(&str, &str)> {
        match self {
            Self::Pair(left, right) => Some((left, right)),
            Self::Line(line) => line.split_once(' ').filter(|(_, right)| !right.contains(' ')),
        }
    }
}

impl TokenizerJson {
    /// Reads the file's bytes.
    ///
    /// # Errors
    /// [`Unsupported`] says what is not covered.
    pub fn parse(json: &[u8]) -> Result<Self, Unsupported> {
        let file: File = serde_json::from_slice(json)
            .map_err(|error| Unsupported(format!("only byte-pair encoding is covered natively ({error})")))?;
        let model = &file.model;
        check_model(model)?;
        let (family, is_nfc, is_prefixed) = find_family(&file)?;
        let merges = if family.is_own() { read_merges(model)? } else { Vec::new() };
        let is_bytes = family != Family::SentencePiece;
        let words: Vec<(Vec<u8>, u32)> = model
            .vocab
            .iter()
            .filter_map(|(token, &id)| Some((if is_bytes { bytes_of(token)? } else { text_of(token)? }, id)))
            .collect();
        let bytes = if is_bytes { single_bytes(&words) } else { fallback_bytes(&model.vocab) };
        let lacks_bytes = bytes.contains(&NONE);
        let family = match family {
            Family::Gpt2 { .. } => Family::Gpt2 { lacks_bytes },
            Family::SmolLm { .. } => Family::SmolLm { lacks_bytes },
            _ if lacks_bytes => return Err(Unsupported("some bytes have no token".to_owned())),
            other => other,
        };
        if family == Family::SentencePiece {
            check_spaces(model)?;
        }
        let ids = model.vocab.values().copied().collect();
        Ok(Self { family, is_nfc, is_prefixed, ignore_merges: model.ignore_merges, ids, words, bytes, merges })
    }

    /// How many bytes of text each token covers, by id.
    ///
    /// # Errors
    /// A token is too long for that.
    pub fn lengths(&self) -> Result<Vec<u16>, String> {
        let n_ids = self.words.iter().map(|(_, id)| *id as usize + 1).max().unwrap_or(0);
        let mut lengths = vec![0; n_ids]; // 0: no text gives this token
        for (word, id) in &self.words {
            let too_long = |_| format!("its token {id} has {} bytes", word.len());
            lengths[*id as usize] = u16::try_from(word.len()).map_err(too_long)?;
        }
        // A byte's token is written `<0x41>`, and covers one byte.
        for &id in self.bytes.iter().filter(|&&id| id != NONE) {
            lengths[id as usize] = 1;
        }
        Ok(lengths)
    }

    /// The token of each ASCII character that is the whole text; None where that depends on what is before.
    pub fn single(&self) -> Option<[u32; 128]> {
        (self.family != Family::SentencePiece).then(|| std::array::from_fn(|byte| self.bytes[byte]))
    }
}

fn check_model(model: &Model) -> Result<(), Unsupported> {
    let is_empty = |text: &Option<String>| text.as_deref().unwrap_or("").is_empty();
    if model.r#type.as_deref() != Some("BPE") {
        let found = model.r#type.as_deref().unwrap_or("not named");
        return Err(Unsupported(format!("its model is {found}; byte-pair encoding (BPE) alone is covered natively")));
    }
    if model.dropout.is_some_and(|dropout| dropout > 0.0) {
        return Err(Unsupported("its merges drop out at random".to_owned()));
    }
    if !is_empty(&model.continuing_subword_prefix) || !is_empty(&model.end_of_word_suffix) {
        return Err(Unsupported("it marks the inside or the end of words".to_owned()));
    }
    Ok(())
}

fn read_merges(model: &Model) -> Result<Vec<(u32, u32, u32)>, Unsupported> {
    let id = |token: &str| {
        model.vocab.get(token).copied().ok_or_else(|| Unsupported(format!("a merge names {token:?}, no token")))
    };
    let read = |merge: &Merge| {
        let (left, right) = merge.pair().ok_or_else(|| Unsupported("a merge is not a pair".to_owned()))?;
        Ok((id(left)?, id(right)?, id(&format!("{left}{right}"))?))
    };
    model.merges.iter().map(read).collect()
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK: [&str; 3] = [
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
];

/// The family, whether there is NFC, whether there is a prefix.
fn find_family(file: &File) -> Result<(Family, bool, bool), Unsupported> {
    let steps = file.pre_tokenizer.as_ref().map(|step| steps_of(step, "pretokenizers")).unwrap_or_default();
    let normalizers = file.normalizer.as_ref().map(|step| steps_of(step, "normalizers")).unwrap_or_default();
    // Gemma's: of the spaces that it would split at none is left.
    let gemma = json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false});
    if (steps.is_empty() || steps == [gemma]) && file.model.byte_fallback && !file.model.ignore_merges {
        let legacy = [
            json!({"type": "Prepend", "prepend": "▁"}),
            json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"}),
        ];
        if normalizers == legacy {
            return Ok((Family::SentencePiece, false, true));
        }
        if normalizers == legacy[1..] {
            return Ok((Family::SentencePiece, false, false));
        }
    }
    let is_nfc = normalizers == [json!({"type": "NFC"})];
    if !is_nfc && !normalizers.is_empty() {
        return Err(Unsupported(format!("its normalizer is not covered natively: {}", shorten(&normalizers))));
    }
    let families =
        [Family::Llama3, Family::Qwen2, Family::Qwen35, Family::O200k, Family::Tekken, GPT2, SMOLLM, Family::DeepSeek];
    let known = families.into_iter().find(|family| is_family(&steps, *family));
    known
        .map(|family| (family, is_nfc, false))
        .ok_or_else(|| Unsupported(format!("its pre-tokenizer is not covered natively: {}", shorten(&steps))))
}

const GPT2: Family = Family::Gpt2 { lacks_bytes: false };
const SMOLLM: Family = Family::SmolLm { lacks_bytes: false };

fn is_family(steps: &[Value], family: Family) -> bool {
    let split =
        |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
    let (splits, use_regex): (Vec<Value>, bool) = match family {
        Family::Llama3 => (vec![split(LLAMA3)], false),
        Family::Qwen2 => (vec![split(QWEN2)], false),
        Family::Qwen35 => (vec![split(QWEN35)], false),
        Family::O200k => (vec![split(O200K)], false),
        Family::Tekken => (vec![split(TEKKEN)], false),
        Family::DeepSeek => (DEEPSEEK.iter().map(|regex| split(regex)).collect(), false),
        Family::Gpt2 { .. } => (vec![], true),
        Family::SmolLm { .. } => (vec![json!({"type": "Digits", "individual_digits": true})], true),
        Family::SentencePiece => return false,
    };
    let Some((last, first)) = steps.split_last() else { return false };
    // `trim_offsets` belongs to the post-processor; `use_regex` is on unless said otherwise.
    first == splits
        && last["type"] == "ByteLevel"
        && last["add_prefix_space"] == false
        && last["use_regex"].as_bool().unwrap_or(true) == use_regex
}

/// A step, or the steps of a sequence of them.
fn steps_of(step: &Value, list: &str) -> Vec<Value> {
    if step["type"] == "Sequence" {
        return step[list].as_array().into_iter().flatten().flat_map(|step| steps_of(step, list)).collect();
    }
    vec![step.clone()]
}

fn shorten(steps: &[Value]) -> String {
    let names: Vec<_> = steps.iter().map(|step| step["type"].as_str().unwrap_or("?")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The bytes behind a token of the byte-level alphabet; None for a token that is not written in it.
fn bytes_of(token: &str) -> Option<Vec<u8>> {
    token.chars().map(byte_of).collect()
}

/// GPT-2's alphabet: printable bytes are themselves, the others follow from U+0100 on.
fn byte_of(char: char) -> Option<u8> {
    let is_printable = |code: u32| matches!(code, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let code = u32::from(char);
    if is_printable(code) {
        return u8::try_from(code).ok();
    }
    let index = code.checked_sub(0x100)? as usize;
    (0..=255_u8).filter(|byte| !is_printable(u32::from(*byte))).nth(index)
}

/// The text behind a token of `SentencePiece`; None for one that no text gives, since every space becomes ▁ first.
fn text_of(token: &str) -> Option<Vec<u8>> {
    (!token.contains(' ')).then(|| token.replace('▁', " ").into_bytes())
}

fn single_bytes(words: &[(Vec<u8>, u32)]) -> [u32; 256] {
    let mut bytes = [NONE; 256];
    for (word, id) in words {
        if let [byte] = word[..] {
            bytes[usize::from(byte)] = *id;
        }
    }
    bytes
}

fn fallback_bytes(vocab: &HashMap<String, u32>) -> [u32; 256] {
    std::array::from_fn(|byte| vocab.get(&format!("<0x{byte:02X}>")).copied().unwrap_or(NONE))
}

/// The scanner cuts a text before every run of spaces: no token may reach across.
fn check_spaces(model: &Model) -> Result<(), Unsupported> {
    let reaches_across = |token: &str| token.trim_start_matches('▁').contains('▁');
    let made = model.merges.iter().filter_map(Merge::pair).map(|(left, right)| format!("{left}{right}"));
    match made.into_iter().find(|token| reaches_across(token)) {
        Some(token) => Err(Unsupported(format!("the token {token:?} reaches across words"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_is_a_bijection() {
        let mut bytes: Vec<u8> = (0..0x144).filter_map(char::from_u32).filter_map(byte_of).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!((byte_of('Ġ'), byte_of('Ċ'), byte_of(' '), byte_of('中')), (Some(b' '), Some(b'\n'), None, None));
    }

    #[test]
    fn a_token_that_reaches_across_words_is_refused() {
        let model = |right: &str| Model {
            r#type: Some("BPE".to_owned()),
            dropout: None,
            continuing_subword_prefix: None,
            end_of_word_suffix: None,
            byte_fallback: true,
            ignore_merges: false,
            vocab: HashMap::new(),
            merges: vec![Merge::Pair("▁▁a".to_owned(), right.to_owned())],
        };
        assert!(check_spaces(&model("b")).is_ok());
        assert!(check_spaces(&model("▁b")).is_err());
    }
}
