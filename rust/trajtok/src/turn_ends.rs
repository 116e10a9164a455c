//! By which tokens an assistant's turn ends, found by trying a chat template on small conversations.

use std::collections::HashSet;
use std::ops::Range;

use crate::written::Written;

/// A control token of a rendering, by its index, and its bytes.
pub type Placed = (usize, Range<usize>);

/// Runs of control tokens, each directly behind the other, by which a turn may end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TurnEnds(Vec<Vec<usize>>);

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
    /// token that is special and starts no message.
    pub fn of(samples: &Samples, is_special: &[bool]) -> Self {
        let behind = |written: &Option<Written>| {
            let written = written.as_ref()?;
            Some(written.controls_in(written.behind(1)?).collect::<Vec<_>>())
        };
        let (last, middle) = (behind(&samples.last), behind(&samples.middle));
        let mut starts = starts_of([&samples.last, &samples.middle].into_iter().flatten());
        // Where nothing ends a conversation, what follows an answer in its middle is the next message's header.
        let middle = match (&last, middle) {
            (Some(last), Some(found))
                if last.is_empty() && found.first().is_some_and(|(first, _)| starts.contains(first)) =>
            {
                None
            }
            (_, middle) => middle,
        };
        let runs: Vec<Vec<usize>> =
            [&last, &middle].into_iter().flatten().map(|found| run_of(found, &starts)).collect();
        let mut ends = Self(match runs.as_slice() {
            [one, other] => {
                let common: Vec<usize> = one.iter().zip(other).take_while(|(a, b)| a == b).map(|(a, _)| *a).collect();
                if common.is_empty() {
                    runs.iter().map(|run| run.iter().take(1).copied().collect()).collect()
                } else {
                    vec![common]
                }
            }
            _ => runs.iter().map(|run| run.iter().take(1).copied().collect()).collect(),
        });
        ends.0.retain(|run| !run.is_empty());
        if let Some(found) = &last {
            // What a template writes behind every conversation's end starts the next message.
            let n_end = ends.0.iter().filter(|run| is_at(run, found)).map(Vec::len).max().unwrap_or(0);
            starts.extend(found.iter().skip(n_end).map(|(control, _)| *control));
        }
        if let Some(found) = behind(&samples.call)
            && ends.places(&found).is_empty()
        {
            let end = found.iter().rev().map(|(control, _)| *control).find(|control| !starts.contains(control));
            ends.0.extend(end.filter(|control| is_special[*control]).map(|control| vec![control]));
        }
        ends
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The last token of each: where a served model stops.
    pub fn stops(&self) -> impl Iterator<Item = usize> {
        let mut seen = HashSet::new();
        self.0.iter().filter_map(|run| run.last().copied()).filter(move |control| seen.insert(*control))
    }

    /// Where runs end that stand among these control tokens, in order.
    pub fn places(&self, controls: &[Placed]) -> Vec<usize> {
        let end_at = |from: usize| {
            let found = self.0.iter().filter(|run| is_at(run, &controls[from..])).max_by_key(|run| run.len())?;
            Some(controls[from + found.len() - 1].1.end)
        };
        (0..controls.len()).filter_map(end_at).collect()
    }
}

/// Whether the controls begin with the run, each directly behind the other.
fn is_at(run: &[usize], controls: &[Placed]) -> bool {
    let touch = controls.windows(2).take(run.len().saturating_sub(1)).all(|pair| pair[0].1.end == pair[1].1.start);
    touch && run.len() <= controls.len() && run.iter().zip(controls).all(|(control, (found, _))| control == found)
}

/// The first controls, each directly behind the other, up to one that starts a message.
fn run_of(controls: &[Placed], starts: &HashSet<usize>) -> Vec<usize> {
    let mut run: Vec<usize> = Vec::new();
    for (index, (control, bytes)) in controls.iter().enumerate() {
        let touches = index == 0 || controls[index - 1].1.end == bytes.start;
        if !touches || (index > 0 && starts.contains(control)) {
            break;
        }
        run.push(*control);
    }
    run
}

/// The controls that a conversation begins with, each directly behind the other.
fn starts_of<'a>(samples: impl Iterator<Item = &'a Written>) -> HashSet<usize> {
    let first_run =
        |written: &Written| run_of(&written.controls_in(0..written.text.len()).collect::<Vec<_>>(), &HashSet::new());
    samples.flat_map(first_run).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adjoining(controls: &[usize]) -> Vec<Placed> {
        controls.iter().enumerate().map(|(index, control)| (*control, index * 3..index * 3 + 3)).collect()
    }

    #[test]
    fn a_run_ends_where_text_stands_between_or_a_message_starts() {
        let starts = HashSet::from([7]);
        assert_eq!(run_of(&adjoining(&[1, 2, 7, 3]), &starts), [1, 2]);
        assert_eq!(run_of(&[(1, 0..3), (2, 4..7)], &starts), [1]);
        assert_eq!(run_of(&adjoining(&[7]), &starts), [7]);
    }

    #[test]
    fn the_longest_run_at_a_place_is_taken() {
        let ends = TurnEnds(vec![vec![1], vec![1, 2]]);
        assert_eq!(ends.places(&adjoining(&[5, 1, 2, 1])), [9, 12]);
        assert_eq!(ends.places(&[(1, 0..3), (2, 4..7)]), [3]);
        assert_eq!(ends.stops().collect::<Vec<_>>(), [1, 2]);
    }
}
