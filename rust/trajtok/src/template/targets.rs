//! What must hold of a trained turn: a served model is given what precedes it, and writes all of it.

use std::ops::Range;

use crate::conversation::Message;
use crate::error::{Error, Reason, Rejection};
use crate::template::python_text::is_space;

/// What happens to the empty `<think></think>` that some templates write where a turn has no reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmptyThink {
    /// It is context.
    Mask,
    /// It is a part of the target.
    Train,
}

impl EmptyThink {
    /// The rule of this name.
    ///
    /// # Errors
    /// [`Error::UnknownEmptyThink`].
    pub fn parse(name: &str) -> Result<Self, Error> {
        match name {
            "mask" => Ok(Self::Mask),
            "train" => Ok(Self::Train),
            _ => Err(Error::UnknownEmptyThink(name.to_owned())),
        }
    }

    /// The bytes of a turn that are context by this rule.
    pub(crate) fn context(self, message: &Message<'_>, rendering: &str, turn: &Range<usize>) -> Range<usize> {
        match (self, &message.reasoning) {
            (Self::Mask, None) => empty_think(rendering, turn),
            _ => 0..0,
        }
    }
}

/// The bytes of the turn of message `index`, proved: a served model is given what precedes it, and a conversation that ends with
/// it has the same turn. It starts where the prompt ends; `ends_of` says where it may
/// end: it is the first of these places behind which nothing of it follows.
///
/// `text_of`: the first so many messages, with the start of an assistant's turn behind them or without. `is_nothing`: whether what
/// stands behind a turn that ends a conversation is no part of the turn.
///
/// # Errors
/// [`Error::Rejected`] with `prompt_differs` or `target_differs`, and what the two functions fail with.
pub fn prove_target(
    index: usize,
    n_messages: usize,
    rendering: &str,
    ends_of: impl FnOnce(usize) -> Result<Vec<usize>, Error>,
    text_of: impl Fn(usize, bool) -> Result<String, Error>,
    is_nothing: impl Fn(&str) -> bool,
) -> Result<Range<usize>, Error> {
    let prompt = text_of(index, true)?;
    check_prompt(index, rendering, &prompt)?;
    let (start, ends) = (prompt.len(), ends_of(prompt.len())?);
    let alone = if index + 1 < n_messages { &text_of(index + 1, false)? } else { rendering };
    let ends_turn =
        |end: &&usize| alone.starts_with(&rendering[..**end]) && alone.get(**end..).is_some_and(&is_nothing);
    match (ends.iter().find(ends_turn), ends.first()) {
        (Some(end), _) => Ok(start..*end),
        (None, Some(end)) => Err(target_differs(index, &rendering[..*end], alone)),
        (None, None) => Err(target_differs(index, rendering, alone)),
    }
}

/// Checks that the rendering begins with what a served model is given before it writes message `index`.
///
/// # Errors
/// [`Error::Rejected`] with `prompt_differs`.
pub fn check_prompt(index: usize, rendering: &str, prompt: &str) -> Result<(), Error> {
    if rendering.starts_with(prompt) {
        return Ok(());
    }
    let (read, given) = around_difference(rendering, prompt);
    let detail = format!("messages[{index}]: the row reads {read:?} where a served model is given {given:?}");
    Err(Rejection::error(Reason::PromptDiffers, detail))
}

/// The turn that the row's text ends with is not the one that a conversation that ends with it has.
fn target_differs(index: usize, row: &str, alone: &str) -> Error {
    let (read, written) = around_difference(row, alone);
    let detail = format!(
        "messages[{index}]: the row reads {read:?} where a conversation that ends with this turn has {written:?}: the template \
         treats the last turn apart, as for its reasoning or its end; take reasoning = \"per_turn_rows\" or another template"
    );
    Rejection::error(Reason::TargetDiffers, detail)
}

/// The bytes of the turn that are an empty `<think></think>` at its start.
fn empty_think(rendering: &str, turn: &Range<usize>) -> Range<usize> {
    let text = &rendering[turn.clone()];
    // Some prompts open the tag: then the turn starts inside of it.
    let is_open = rendering[..turn.start].trim_end_matches(is_space).ends_with("<think>");
    let start = text.trim_start_matches(is_space);
    let inside =
        if is_open { Some(start) } else { start.strip_prefix("<think>").map(|text| text.trim_start_matches(is_space)) };
    match inside.and_then(|text| text.strip_prefix("</think>")) {
        // What follows its line breaks is said by the model, white space included.
        Some(rest) => turn.start..turn.end - rest.trim_start_matches('\n').len(),
        None => turn.start..turn.start,
    }
}

/// How much of the texts is shown.
const N_SHOWN: usize = 40;

/// The two texts around the first character in which they differ.
fn around_difference<'t>(one: &'t str, other: &'t str) -> (&'t str, &'t str) {
    let n_same: usize =
        one.chars().zip(other.chars()).take_while(|(left, right)| left == right).map(|(char, _)| char.len_utf8()).sum();
    let start = one[..n_same].char_indices().rev().take(N_SHOWN).last().map_or(n_same, |(at, _)| at);
    let shown = |text: &'t str| {
        let end = text[n_same..].char_indices().nth(N_SHOWN).map_or(text.len(), |(at, _)| n_same + at);
        &text[start..end]
    };
    (shown(one), shown(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detail(result: Result<(), Error>) -> String {
        match result {
            Err(Error::Rejected(rejection)) => rejection.detail,
            other => panic!("expected a rejection, found {other:?}"),
        }
    }

    #[test]
    fn a_prompt_has_to_be_the_beginning() {
        assert!(check_prompt(1, "Q: a A: b", "Q: a A: ").is_ok());
        let found = detail(check_prompt(1, "Q: a A: b", "Q: a A: <think>"));
        assert!(found.contains(r#"reads "Q: a A: b" where a served model is given "Q: a A: <think>""#), "{found}");
    }

    fn prove(rendering: &str, ends: &[usize], alone: &str) -> Result<Range<usize>, Error> {
        let text_of = |n_messages, prompt| match (n_messages, prompt) {
            (1, true) => Ok("Q A".to_owned()),
            (2, false) => Ok(alone.to_owned()),
            other => panic!("{other:?} is not asked for"),
        };
        prove_target(1, 3, rendering, |_| Ok(ends.to_vec()), text_of, |rest| rest.trim().is_empty())
    }

    #[test]
    fn a_target_has_to_be_what_a_conversation_that_ends_with_it_has() {
        assert_eq!(prove("Q A b. Q", &[6], "Q A b.\n").unwrap(), 3..6);
        assert!(prove("Q A b. Q", &[6], "Q A <think>b.").is_err());
        assert!(prove("Q A b. Q", &[6], "Q").is_err());
        assert!(prove("Q A b. Q", &[], "Q A b.").is_err());
    }

    #[test]
    fn a_target_goes_on_to_the_end_behind_which_nothing_follows() {
        assert_eq!(prove("Q A b. c. Q", &[6, 9], "Q A b. c.\n").unwrap(), 3..9);
        assert!(prove("Q A b. Q", &[6], "Q A b. c.").is_err());
    }

    #[test]
    fn the_difference_is_shown_with_what_stands_around_it() {
        let (one, other) = (format!("{}é1{}", "x".repeat(90), "y".repeat(90)), format!("{}é2", "x".repeat(90)));
        let (left, right) = around_difference(&one, &other);
        assert_eq!((left.chars().count(), right.chars().count()), (80, 41));
        assert!(left.starts_with("xx") && right.ends_with("é2"));
    }

    #[test]
    fn an_empty_think_is_found_at_the_start_alone() {
        let text = "A:<think>\n\n</think>\n\nb<think></think>";
        assert_eq!(empty_think(text, &(2..text.len())), 2..text.find('b').unwrap());
        assert_eq!(empty_think("<think>\n\n</think>\n\n b", &(0..21)), 0..19);
        assert!(empty_think("A:<think>x</think>b", &(2..19)).is_empty());
        assert!(empty_think("A:b", &(2..3)).is_empty());
        let opened = "A:<think>\n\n</think>\n\nb";
        assert_eq!(empty_think(opened, &(10..opened.len())), 10..opened.find('b').unwrap());
    }
}
