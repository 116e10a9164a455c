//! Marks around the texts of a conversation, so that a rendering tells where each of them stands.
//!
//! A mark is a run of rare letters that no text of the conversation holds. Templates pass them on as they pass on letters;
//! one that does not is found out, since the rendering without the marks is then another.

use std::ops::Range;

use crate::template::python_text::is_space;

/// Letters of Linear A: they are printable, no white space, and have no upper or lower case.
const FIRST: u32 = 0x10600;
const LAST: u32 = 0x10736;
/// Letters of one alphabet: two brackets and ten digits.
const N_LETTERS: usize = 12;

/// The letters that marks are made of.
#[derive(Debug, Clone)]
pub struct Alphabet {
    open: char,
    close: char,
    digits: [char; 10],
}

/// A stretch of a rendering that stands for a marked text. Offsets are bytes of the rendering without its marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The number of the mark.
    pub number: usize,
    /// Where it stands.
    pub bytes: Range<usize>,
}

impl Alphabet {
    /// One whose letters stand in none of the texts.
    pub fn unused<'a>(texts: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut is_used = [false; (LAST - FIRST + 1) as usize];
        // Such letters begin with the bytes F0 90 98 to F0 90 9C: most texts hold none of them.
        for text in texts.filter(|text| memchr::memmem::find(text.as_bytes(), &[0xF0, 0x90]).is_some()) {
            for place in text.chars().filter_map(|char| u32::from(char).checked_sub(FIRST)) {
                if let Some(used) = is_used.get_mut(place as usize) {
                    *used = true;
                }
            }
        }
        let mut free =
            (FIRST..=LAST).zip(is_used).filter(|(_, used)| !used).filter_map(|(code, _)| char::from_u32(code));
        let letters: Vec<char> = free.by_ref().take(N_LETTERS).collect();
        match letters.as_slice() {
            [open, close, digits @ ..] => Some(Self { open: *open, close: *close, digits: digits.try_into().ok()? }),
            _ => None,
        }
    }

    /// A letter of it, which stands in none of the texts.
    pub fn letter(&self) -> char {
        self.open
    }

    /// The text with marks of this number around it, inside of the white space at its ends: templates cut that off. An empty
    /// or blank text has no marks.
    pub fn mark(&self, number: usize, text: &str) -> String {
        let Range { start, end } = inner(text);
        if start == end {
            return text.to_owned();
        }
        let (before, inner, after) = (&text[..start], &text[start..end], &text[end..]);
        format!("{before}{}{inner}{}{after}", self.border(2 * number), self.border(2 * number + 1))
    }

    fn border(&self, n: usize) -> String {
        let digits = n.to_string();
        let letters = digits.bytes().map(|digit| self.digits[usize::from(digit - b'0')]);
        std::iter::once(self.open).chain(letters).chain(std::iter::once(self.close)).collect()
    }

    /// The rendering without its marks, and the slots in the order of their ends. None where a mark is broken or alone.
    pub fn read(&self, marked: &str) -> Option<(String, Vec<Slot>)> {
        let (mut text, mut slots, mut open) = (String::with_capacity(marked.len()), Vec::new(), Vec::new());
        let mut rest = marked;
        while let Some(at) = rest.find(self.open) {
            text.push_str(&rest[..at]);
            let inside = &rest[at + self.open.len_utf8()..];
            let end = inside.find(self.close)?;
            let n = self.number(&inside[..end])?;
            if n % 2 == 0 {
                open.push((n / 2, text.len()));
            } else {
                let place = open.iter().rposition(|(number, _)| *number == n / 2)?;
                let (number, start) = open.remove(place);
                slots.push(Slot { number, bytes: start..text.len() });
            }
            rest = &inside[end + self.close.len_utf8()..];
        }
        text.push_str(rest);
        let is_whole = open.is_empty() && !rest.contains(self.close);
        is_whole.then_some((text, slots))
    }

    fn number(&self, letters: &str) -> Option<usize> {
        letters.chars().try_fold(0_usize, |number, letter| {
            let digit = self.digits.iter().position(|digit| *digit == letter)?;
            number.checked_mul(10)?.checked_add(digit)
        })
    }
}

/// The text without the white space at its ends, by Python's notion of it.
pub fn inner(text: &str) -> Range<usize> {
    let start = text.len() - text.trim_start_matches(is_space).len();
    start..start + text[start..].trim_end_matches(is_space).len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn marks_stand_inside_of_white_space_and_never_around_nothing() {
        let alphabet = Alphabet::unused([].into_iter()).unwrap();
        assert_eq!(alphabet.mark(0, ""), "");
        assert_eq!(alphabet.mark(0, " \n"), " \n");
        let marked = alphabet.mark(12, " a b\n");
        assert!(marked.starts_with(' ') && marked.ends_with('\n'));
        let slots = vec![Slot { number: 12, bytes: 1..4 }];
        assert_eq!(alphabet.read(&marked), Some((" a b\n".to_owned(), slots)));
    }

    #[test]
    fn a_broken_mark_is_found_out() {
        let alphabet = Alphabet::unused([].into_iter()).unwrap();
        let marked = alphabet.mark(3, "text");
        for cut in 1..marked.chars().count() {
            let shorter: String = marked.chars().take(cut).collect();
            assert_eq!(alphabet.read(&shorter), None, "{cut}");
        }
    }

    #[test]
    fn letters_that_a_text_holds_are_not_taken() {
        let text: String = (FIRST..FIRST + 100).filter_map(char::from_u32).collect();
        let alphabet = Alphabet::unused([text.as_str()].into_iter()).unwrap();
        assert!(!alphabet.mark(0, "x").contains(|char| text.contains(char)));
        let all: String = (FIRST..=LAST).filter_map(char::from_u32).collect();
        assert!(Alphabet::unused([all.as_str()].into_iter()).is_none());
    }

    proptest! {
        #[test]
        fn marked_texts_read_back_as_they_were(texts in prop::collection::vec("\\PC{0,12}|[ \\n]{0,3}|𐘀𐘁x", 0..8)) {
            let alphabet = Alphabet::unused(texts.iter().map(String::as_str)).unwrap();
            let marked: String = texts.iter().enumerate().map(|(number, text)| alphabet.mark(number, text)).collect();
            let (read, slots) = alphabet.read(&marked).unwrap();
            prop_assert_eq!(&read, &texts.concat());
            let expected: Vec<&str> = texts.iter().map(|text| &text[inner(text)]).filter(|text| !text.is_empty()).collect();
            let found: Vec<&str> = slots.iter().map(|slot| &read[slot.bytes.clone()]).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
