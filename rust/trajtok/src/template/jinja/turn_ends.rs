//! By which tokens an assistant's turn ends, found by trying a chat template on small conversations.

use std::collections::HashSet;
use std::ops::Range;

use crate::template::jinja::written::Written;

/// A control token of a rendering, by its index, and its bytes.
pub type Placed = (usize, Range<usize>);

/// Runs of control tokens, with nothing but white space between them, by which a turn may end, and the tokens by which messages
/// start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TurnEnds {
    runs: Vec<Vec<usize>>,
    /// So many of them end answers; the others, calls.
    n_answers: usize,
    /// Words stand between the tokens that close a turn.
    has_words: bool,
    starts: HashSet<usize>,
}

/// A template's answers to what it was tried on; None where it refused.
pub struct Samples {
    /// Somebody asks, and is answered.
    pub last: Option<Written>,
    /// The same, and asks again.
    pub middle: Option<Written>,
    /// Somebody asks, and a tool is called.
    pub call: Option<Written>,
}

impl TurnEnds {
    /// Behind an answer, all tokens that stand there both at a conversation's end and in its middle, up to one that starts a
    /// message; where the two have none in common, the first of each. Behind a call that ends with none of these, the last
    /// token that is special and starts no message. `by_header`: where nothing ends a conversation, the header of the next message
    /// ends a turn, as a served model writes it and stops.
    pub fn of(samples: &Samples, is_special: &[bool], by_header: bool) -> Self {
        let behind = |written: &Option<Written>| {
            let written = written.as_ref()?;
            Some(written.controls_in(written.behind(1)?).collect::<Vec<_>>())
        };
        let text = |written: &Option<Written>| written.as_ref().map_or(String::new(), |written| written.text.clone());
        let (last, middle) = (behind(&samples.last), behind(&samples.middle));
        let starts: HashSet<usize> =
            [&samples.last, &samples.middle].into_iter().flatten().flat_map(first_run).collect();
        // Where nothing ends a conversation, what follows an answer in its middle is the next message's header.
        let middle = match (&last, middle) {
            (Some(last), Some(found))
                if !by_header && last.is_empty() && found.first().is_some_and(|(first, _)| starts.contains(first)) =>
            {
                None
            }
            (_, middle) => middle,
        };
        let found = [(&last, text(&samples.last)), (&middle, text(&samples.middle))];
        let runs = found.iter().filter_map(|(found, text)| Some(run_of(found.as_ref()?, text, &starts)));
        let closed_by = if by_header { closing(samples) } else { None };
        let has_words = closed_by.is_some();
        let runs = closed_by.map_or_else(|| common(&runs.collect::<Vec<_>>()), |end| vec![vec![end]]);
        let mut ends = Self { n_answers: runs.len(), runs, has_words, starts };
        let mut no_ends = ends.starts.clone();
        if let Some(found) = &last {
            // What a template writes behind every conversation's end starts the next message.
            let text = text(&samples.last);
            let n_end = ends.runs.iter().filter(|run| is_at(run, found, &text)).map(Vec::len).max().unwrap_or(0);
            no_ends.extend(found.iter().skip(n_end).map(|(control, _)| *control));
        }
        if let Some(found) = behind(&samples.call)
            && ends.places(&found, &text(&samples.call)).is_empty()
        {
            let end = found.iter().rev().map(|(control, _)| *control).find(|control| !no_ends.contains(control));
            ends.runs.extend(end.filter(|control| is_special[*control]).map(|control| vec![control]));
        }
        ends
    }

    /// The last token of each that ends answers.
    pub fn answer_stops(&self) -> impl Iterator<Item = usize> {
        self.runs[..self.n_answers].iter().filter_map(|run| run.last().copied())
    }

    /// Whether words stand between the tokens that close a turn.
    pub fn has_words(&self) -> bool {
        self.has_words
    }

    /// Without those that end calls alone.
    pub fn keep_answers(&mut self) {
        self.runs.truncate(self.n_answers);
    }

    /// With one more token by which a turn may end.
    pub fn take_up(&mut self, end: Option<usize>) {
        self.runs.extend(end.map(|end| vec![end]).filter(|run| !self.runs.contains(run)));
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether messages start with this token.
    pub fn is_start(&self, control: usize) -> bool {
        self.starts.contains(&control)
    }

    /// The last token of each: where a served model stops.
    pub fn stops(&self) -> impl Iterator<Item = usize> {
        let mut seen = HashSet::new();
        self.runs.iter().filter_map(|run| run.last().copied()).filter(move |control| seen.insert(*control))
    }

    /// Where runs end that stand among these control tokens of a text, in order.
    pub fn places(&self, controls: &[Placed], text: &str) -> Vec<usize> {
        let end_at = |from: usize| {
            let found =
                self.runs.iter().filter(|run| is_at(run, &controls[from..], text)).max_by_key(|run| run.len())?;
            Some(controls[from + found.len() - 1].1.end)
        };
        (0..controls.len()).filter_map(end_at).collect()
    }
}

/// The last token behind an answer, where tokens with text between them close it, the same at a conversation's end and in its middle.
fn closing(samples: &Samples) -> Option<usize> {
    let (last, middle) = (samples.last.as_ref()?, samples.middle.as_ref()?);
    let behind = last.behind(1)?;
    let (end, place) = last.controls_in(behind.clone()).last()?;
    let closes = &last.text[behind.start..place.end];
    let is_all = last.text[place.end..].trim().is_empty() && middle.text[middle.behind(1)?].starts_with(closes);
    let controls: Vec<Placed> = last.controls_in(behind).collect();
    let has_text = controls.windows(2).any(|pair| !is_blank(&last.text, &pair[0], &pair[1]));
    // It ends the user's messages, too, and no part of the turn before.
    let is_usual = last.controls_in(last.behind(0)?).any(|(control, _)| control == end);
    let is_last = controls.iter().filter(|(control, _)| *control == end).count() == 1;
    (is_all && has_text && is_usual && is_last).then_some(end)
}

/// What two runs begin with; where that is nothing, the first token of each.
fn common(runs: &[Vec<usize>]) -> Vec<Vec<usize>> {
    if let [one, other] = runs {
        let same: Vec<usize> = one.iter().zip(other).take_while(|(a, b)| a == b).map(|(a, _)| *a).collect();
        if !same.is_empty() {
            return vec![same];
        }
    }
    runs.iter().filter_map(|run| run.first().map(|first| vec![*first])).collect()
}

/// Whether the controls begin with the run, with nothing but white space between.
fn is_at(run: &[usize], controls: &[Placed], text: &str) -> bool {
    let follow = |pair: &[Placed]| is_blank(text, &pair[0], &pair[1]);
    let is_same = run.len() <= controls.len() && run.iter().zip(controls).all(|(control, (found, _))| control == found);
    is_same && controls[..run.len()].windows(2).all(follow)
}

fn is_blank(text: &str, one: &Placed, next: &Placed) -> bool {
    text.get(one.1.end..next.1.start).is_some_and(|between| between.trim().is_empty())
}

/// The first controls, with nothing but white space between, up to one that starts a message.
fn run_of(controls: &[Placed], text: &str, starts: &HashSet<usize>) -> Vec<usize> {
    let mut run: Vec<usize> = Vec::new();
    for (index, placed) in controls.iter().enumerate() {
        if index > 0 && (!is_blank(text, &controls[index - 1], placed) || starts.contains(&placed.0)) {
            break;
        }
        run.push(placed.0);
    }
    run
}

/// The controls that a conversation begins with.
fn first_run(written: &Written) -> Vec<usize> {
    run_of(&written.controls_in(0..written.text.len()).collect::<Vec<_>>(), &written.text, &HashSet::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "aaabbb ccc.ddd";

    #[test]
    fn a_run_ends_where_text_stands_between_or_a_message_starts() {
        let controls = [(1, 0..3), (2, 3..6), (3, 7..10), (4, 11..14)];
        assert_eq!(run_of(&controls, TEXT, &HashSet::new()), [1, 2, 3]);
        assert_eq!(run_of(&controls, TEXT, &HashSet::from([2])), [1]);
        assert_eq!(run_of(&controls[..1], TEXT, &HashSet::from([1])), [1]);
    }

    #[test]
    fn the_longest_run_at_a_place_is_taken() {
        let ends = TurnEnds { runs: vec![vec![1], vec![1, 2]], n_answers: 2, has_words: false, starts: HashSet::new() };
        assert_eq!(ends.places(&[(5, 0..3), (1, 3..6), (2, 7..10), (1, 11..14)], TEXT), [10, 14]);
        assert_eq!(ends.places(&[(1, 7..10), (2, 11..14)], TEXT), [10]);
        assert_eq!(ends.stops().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn without_a_common_run_the_first_of_each_ends_a_turn() {
        assert_eq!(common(&[vec![1, 2], vec![1, 3]]), [[1]]);
        assert_eq!(common(&[vec![1, 2], vec![3]]), [[1], [3]]);
        assert_eq!(common(&[vec![], vec![3]]), [[3]]);
    }
}
