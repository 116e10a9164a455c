//! Whether a template passes an added token inside of a text on as it passes on any other text.
//!
//! Marks around a text show what becomes of its ends. A template that cuts a text at a token and writes the token itself in the
//! same place leaves marks and rendering as they were: what transformers reads there is the token, what stands here is text.
//! Broken up by a letter that no text holds, such a token is found no more, and the rendering is another.

use std::ops::Range;

use aho_corasick::AhoCorasick;

use crate::conversation::Conversation;
use crate::error::{Error, Reason, Rejection};
use crate::template::jinja::messages::{Spot, Values, all_texts};

/// Where a text holds what reads like an added token; what overlaps is one place.
pub fn token_places(overlapping: &AhoCorasick, text: &str) -> Vec<Range<usize>> {
    let mut places: Vec<Range<usize>> = Vec::new();
    for found in overlapping.find_overlapping_iter(text) {
        match places.iter().position(|place| place.end > found.start()) {
            Some(first) => {
                let start = places[first].start.min(found.start());
                places.truncate(first);
                places.push(start..found.end());
            }
            None => places.push(found.range()),
        }
    }
    places
}

/// Checks that the rendering stays the same when each added token inside of a text is broken up.
///
/// # Errors
/// [`Error::Rejected`] with `template_reads_content`: it does not.
pub fn check_tokens_are_passed_on(
    conversation: &Conversation<'_>,
    text: &str,
    overlapping: &AhoCorasick,
    letter: char,
    render: impl FnOnce(&Values) -> Result<String, Error>,
) -> Result<(), Error> {
    // Arguments are JSON text, in which an escape may hide a token.
    let may_hold = |text: &str| overlapping.is_match(text) || text.contains("\\u");
    if !all_texts(conversation).any(may_hold) {
        return Ok(());
    }
    let mut first = None;
    let values = Values::new(conversation, &mut |spot, text| {
        let places = token_places(overlapping, text);
        if let Some(place) = places.first() {
            first.get_or_insert_with(|| format!("{} {:?}", holder(spot), &text[place.clone()]));
        }
        break_up(text, &places, letter)
    })?;
    let Some(first) = first else { return Ok(()) };
    let is_same = match render(&values) {
        Err(Error::Rejected(_)) => false,
        other => other?.replace(letter, "") == text,
    };
    if is_same {
        return Ok(());
    }
    let detail = format!(
        "{first}, an added token that the template looks for in texts: what it writes there is a control token to a served \
         model, here it would be text. Hand what a model thinks over as the turn's `reasoning`, or leave the token out"
    );
    Err(Rejection::error(Reason::TemplateReadsContent, detail))
}

fn holder(spot: Spot) -> String {
    match spot {
        Spot::Text { message, what, .. } => format!("messages[{message}]: its {what} holds"),
        Spot::Name => "a name, an id or a key holds".to_owned(),
        Spot::Schema { .. } => "a tool's schema holds".to_owned(),
    }
}

/// The text with the letter between any two characters of a place.
fn break_up(text: &str, places: &[Range<usize>], letter: char) -> String {
    let is_inside = |at: usize| places.iter().any(|place| place.start < at && at < place.end);
    let mut broken = String::with_capacity(text.len());
    for (at, char) in text.char_indices() {
        if is_inside(at) {
            broken.push(letter);
        }
        broken.push(char);
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_two_characters_of_a_token_are_parted_and_nothing_else() {
        let overlapping = AhoCorasick::new(["</think>", "<b>"]).unwrap();
        let text = "a </think> é<b>b";
        let broken = break_up(text, &token_places(&overlapping, text), '|');
        assert_eq!(broken, "a <|/|t|h|i|n|k|> é<|b|>b");
    }
}
