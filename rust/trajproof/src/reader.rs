//! Reads token ids back as text by the vocabulary of a tokenizer.json alone.

use std::collections::HashMap;

use serde::Deserialize;

use crate::json::Json;

/// The sign that SentencePiece puts for a space.
const SPACE_SIGN: char = '▁';

const MAX_IDS: u32 = 16_000_000;

/// How a vocabulary's entries spell bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// Every byte is a printable character, as GPT-2 has it.
    ByteLevel,
    /// Characters, `▁` for a space, `<0x0A>` for a byte; a space is put before a text.
    SentencePiece,
    /// The same without a space before a text, as Gemma has it.
    Unprefixed,
}

/// What ids stand for.
#[derive(Debug)]
pub struct Reader {
    spelling: Spelling,
    /// By id.
    entries: Vec<Entry>,
    /// The texts of all entries, one behind the other.
    bytes: Vec<u8>,
}

/// What an id is: a place in `Reader::bytes`, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    None,
    Text { start: u32, end: u32 },
    Added { start: u32, end: u32 },
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    model: Model,
    normalizer: Option<Json>,
    decoder: Option<Json>,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}

#[derive(Deserialize)]
struct Model {
    #[serde(default)]
    r#type: Option<String>,
    vocab: HashMap<String, u32>,
}

impl Reader {
    /// Of a tokenizer.json; `None` for one whose ids this crate cannot read.
    #[must_use]
    pub fn new(tokenizer_json: &[u8]) -> Option<Self> {
        let file: File = serde_json::from_slice(tokenizer_json).ok()?;
        if file.model.r#type.as_deref().is_some_and(|kind| kind != "BPE") {
            return None;
        }
        let spelling = spelling_of(&file.decoder?)?;
        if spelling == Spelling::Unprefixed && !file.normalizer.is_some_and(|normalizer| makes_space_sign(&normalizer))
        {
            return None;
        }
        let n_ids =
            file.model.vocab.values().chain(file.added_tokens.iter().map(|token| &token.id)).max()?.checked_add(1)?;
        if n_ids > MAX_IDS {
            return None;
        }
        let mut reader = Self { spelling, entries: vec![Entry::None; n_ids as usize], bytes: Vec::new() };
        let byte_of = byte_level_bytes();
        for (entry, id) in file.model.vocab {
            let bytes = match spelling {
                Spelling::ByteLevel => entry.chars().map(|char| byte_of.get(&char).copied()).collect(),
                Spelling::SentencePiece | Spelling::Unprefixed => Some(sentence_piece_bytes(&entry)),
            };
            if let Some(bytes) = bytes {
                let (start, end) = reader.push(&bytes)?;
                reader.entries[id as usize] = Entry::Text { start, end };
            }
        }
        for token in file.added_tokens {
            let (start, end) = reader.push(token.content.as_bytes())?;
            reader.entries[token.id as usize] = Entry::Added { start, end };
        }
        Some(reader)
    }

    fn push(&mut self, bytes: &[u8]) -> Option<(u32, u32)> {
        let start = u32::try_from(self.bytes.len()).ok()?;
        self.bytes.extend_from_slice(bytes);
        Some((start, u32::try_from(self.bytes.len()).ok()?))
    }

    fn entry(&self, id: u32) -> Entry {
        self.entries.get(id as usize).copied().unwrap_or(Entry::None)
    }

    fn slice(&self, start: u32, end: u32) -> &[u8] {
        &self.bytes[start as usize..end as usize]
    }

    /// The text of an added token.
    #[must_use]
    pub fn added(&self, id: u32) -> Option<&str> {
        match self.entry(id) {
            Entry::Added { start, end } => std::str::from_utf8(self.slice(start, end)).ok(),
            Entry::Text { .. } | Entry::None => None,
        }
    }

    /// Whether ids stand for one text alone.
    pub(crate) fn is_exact(&self) -> bool {
        self.spelling == Spelling::ByteLevel
    }

    /// Whether ids stand for a text: exactly, or, as SentencePiece does, but for a space at the start of a stretch between added
    /// tokens.
    #[must_use]
    pub fn reads(&self, ids: &[u32], text: &str) -> bool {
        let text = match self.spelling {
            Spelling::SentencePiece | Spelling::Unprefixed if text.contains(SPACE_SIGN) => {
                text.replace(SPACE_SIGN, " ")
            }
            _ => return self.matches(ids, text.as_bytes()),
        };
        self.matches(ids, text.as_bytes())
    }

    fn matches(&self, ids: &[u32], text: &[u8]) -> bool {
        let (mut rest, mut at) = (text, 0);
        while at < ids.len() {
            if let Entry::Added { start, end } = self.entry(ids[at]) {
                let Some(behind) = rest.strip_prefix(self.slice(start, end)) else { return false };
                (rest, at) = (behind, at + 1);
                continue;
            }
            let n = ids[at..].iter().take_while(|id| !matches!(self.entry(**id), Entry::Added { .. })).count();
            let Some(behind) = self.after_stretch(&ids[at..at + n], rest) else { return false };
            (rest, at) = (behind, at + n);
        }
        rest.is_empty()
    }

    /// What of a text follows a stretch without added tokens, if the text begins with it.
    fn after_stretch<'t>(&self, ids: &[u32], text: &'t [u8]) -> Option<&'t [u8]> {
        if self.spelling != Spelling::SentencePiece {
            return self.strip(ids, text, 0);
        }
        // Its decoder takes one space away; what is left may stand with another one before it, or without its own.
        let n_taken = usize::from(self.first_byte(ids) == Some(b' '));
        let exact = self.strip(ids, text, n_taken);
        let spaced = || text.strip_prefix(b" ").and_then(|text| self.strip(ids, text, n_taken));
        let bare = || {
            if self.byte_at(ids, n_taken) == Some(b' ') { self.strip(ids, text, n_taken + 1) } else { None }
        };
        exact.or_else(spaced).or_else(bare)
    }

    /// What of a text follows the bytes of some ids, the first `n_left_out` of them left out.
    fn strip<'t>(&self, ids: &[u32], mut text: &'t [u8], mut n_left_out: usize) -> Option<&'t [u8]> {
        for id in ids {
            let Entry::Text { start, end } = self.entry(*id) else { return None };
            let bytes = self.slice(start, end);
            let n = n_left_out.min(bytes.len());
            text = text.strip_prefix(&bytes[n..])?;
            n_left_out -= n;
        }
        Some(text)
    }

    fn first_byte(&self, ids: &[u32]) -> Option<u8> {
        self.byte_at(ids, 0)
    }

    fn byte_at(&self, ids: &[u32], index: usize) -> Option<u8> {
        let texts = ids.iter().map(|id| match self.entry(*id) {
            Entry::Text { start, end } => self.slice(start, end),
            Entry::Added { .. } | Entry::None => &[],
        });
        texts.flatten().nth(index).copied()
    }
}

/// How the entries of a file with this decoder are spelled; `None` for any other way.
fn spelling_of(decoder: &Json) -> Option<Spelling> {
    let steps = match (kind(decoder), field(decoder, "decoders")) {
        ("Sequence", Some(Json::List(steps))) => steps.as_slice(),
        _ => std::slice::from_ref(decoder),
    };
    let kinds: Vec<&str> = steps.iter().map(kind).collect();
    match (kinds.as_slice(), steps) {
        (["ByteLevel"], _) => Some(Spelling::ByteLevel),
        (["Replace", "ByteFallback", "Fuse", "Strip"], [replace, _, _, strip])
            if is_space_sign(replace) && takes_one_space(strip) =>
        {
            Some(Spelling::SentencePiece)
        }
        (["Replace", "ByteFallback", "Fuse"], [replace, ..]) if is_space_sign(replace) => Some(Spelling::Unprefixed),
        _ => None,
    }
}

fn is_space_sign(replace: &Json) -> bool {
    let sign = field(replace, "pattern").and_then(|pattern| field(pattern, "String"));
    sign == Some(&Json::Text(SPACE_SIGN.to_string())) && field(replace, "content") == Some(&Json::Text(" ".into()))
}

/// Whether a normalizer writes every space as the sign, so that a text's own sign stands for one, too.
fn makes_space_sign(normalizer: &Json) -> bool {
    let space = field(normalizer, "pattern").and_then(|pattern| field(pattern, "String"));
    let is_of_spaces = space == Some(&Json::Text(" ".into()));
    is_of_spaces && field(normalizer, "content") == Some(&Json::Text(SPACE_SIGN.to_string()))
}

fn takes_one_space(strip: &Json) -> bool {
    let is = |name, value: &Json| field(strip, name) == Some(value);
    is("content", &Json::Text(" ".into())) && is("start", &Json::Integer(1)) && is("stop", &Json::Integer(0))
}

fn kind(step: &Json) -> &str {
    match field(step, "type") {
        Some(Json::Text(kind)) => kind,
        _ => "",
    }
}

fn field<'j>(json: &'j Json, name: &str) -> Option<&'j Json> {
    match json {
        Json::Object(pairs) => pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value),
        _ => None,
    }
}

/// The characters by which GPT-2's vocabulary spells bytes: printable ones stand for themselves, the others for what follows
/// U+0100, in order.
fn byte_level_bytes() -> HashMap<char, u8> {
    let mut others = 0x100_u32..;
    let spell = |byte: u8| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => Some(char::from(byte)),
        _ => others.next().and_then(char::from_u32),
    };
    let spelled: Vec<Option<char>> = (0..=u8::MAX).map(spell).collect();
    spelled.into_iter().zip(0..=u8::MAX).filter_map(|(char, byte)| Some((char?, byte))).collect()
}

fn sentence_piece_bytes(entry: &str) -> Vec<u8> {
    let byte = entry.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>')).filter(|digits| digits.len() == 2);
    match byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
        Some(byte) => vec![byte],
        None => entry.replace(SPACE_SIGN, " ").into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::Reader;

    const BYTE_LEVEL: &str = r#"{"added_tokens": [{"id": 5, "content": "<|end|>", "special": true}], "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": {"a": 0, "Ġb": 1, "Ã": 2, "©": 3, "Ċ": 4}, "merges": []}}"#;
    const SENTENCE_PIECE: &str = r#"{"added_tokens": [{"id": 0, "content": "<s>", "special": true}],
        "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "vocab": {"<s>": 0, "▁a": 1, "▁": 2, "b": 3, "<0xC3>": 4, "<0xA9>": 5}, "merges": []}}"#;

    #[test]
    fn bytes_are_read_as_they_stand() {
        let reader = Reader::new(BYTE_LEVEL.as_bytes()).unwrap();
        assert!(reader.reads(&[0, 1, 2, 3, 5, 4], "a bé<|end|>\n"));
        assert!(!reader.reads(&[0, 1], "a b "));
        assert!(!reader.reads(&[0, 1, 5], "a b"));
        assert!(!reader.reads(&[0, 6], "a"));
        assert!(!reader.reads(&[0, 99], "a"));
        assert_eq!(reader.added(5), Some("<|end|>"));
    }

    #[test]
    fn a_stretch_of_sentence_piece_may_lack_a_space_or_have_one() {
        let reader = Reader::new(SENTENCE_PIECE.as_bytes()).unwrap();
        for text in ["<s>abé", "<s> abé"] {
            assert!(reader.reads(&[0, 1, 3, 4, 5], text), "{text}");
        }
        assert!(!reader.reads(&[0, 1, 3, 4, 5], "<s>  abé"));
        assert!(reader.reads(&[2, 1], " a") && reader.reads(&[2, 1], "  a") && reader.reads(&[2, 1], "a"));
        assert!(reader.reads(&[1, 2, 1], "a▁ a"));
    }

    #[test]
    fn without_a_space_before_a_text_none_is_lacking_or_too_many() {
        let strip = r#", {"type": "Strip", "content": " ", "start": 1, "stop": 0}"#;
        let unprefixed = SENTENCE_PIECE.replace(strip, "");
        assert!(Reader::new(unprefixed.as_bytes()).is_none(), "nothing writes its spaces as the sign");
        let normalizer = r#""normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}, "model""#;
        let reader = Reader::new(unprefixed.replace(r#""model""#, normalizer).as_bytes()).unwrap();
        assert!(reader.reads(&[0, 1, 3, 4, 5], "<s> abé") && reader.reads(&[1, 2, 1], " a▁ a"));
        for text in ["<s>abé", "<s>  abé", "<s> abé "] {
            assert!(!reader.reads(&[0, 1, 3, 4, 5], text), "{text}");
        }
        assert!(!reader.is_exact());
    }

    #[test]
    fn an_id_beyond_all_others_is_no_vocabulary() {
        for id in ["4294967295", "4294967294", "16000001"] {
            let file = BYTE_LEVEL.replace(r#""id": 5"#, &format!(r#""id": {id}"#));
            assert!(Reader::new(file.as_bytes()).is_none(), "{id}");
        }
    }

    #[test]
    fn another_way_of_spelling_is_not_read() {
        let disguised = r#"{"type": "WordPiece", "decoders": [{"type": "ByteLevel"}]}"#;
        for decoder in [r#"{"type": "WordPiece"}"#, r#"{"type": "Metaspace"}"#, "null", disguised] {
            let file = BYTE_LEVEL.replace(r#"{"type": "ByteLevel"}"#, decoder);
            assert!(Reader::new(file.as_bytes()).is_none(), "{decoder}");
        }
    }
}
