//! A turn as it is served: what a served model is given before it, and behind that the answer that the template writes.
//!
//! Templates of reasoning models open or close a block of thought in the prompt and write none in a conversation, so that no row
//! that they write begins with what is served. The answer stands in what they write all the same, behind what both have in
//! common. `chat_templates/served.py` says the same in Python, for the proof.

use std::ops::Range;

use aho_corasick::{AhoCorasick, BuildError, MatchKind};

use crate::template::python_text::is_space;

/// The tags that prompts open, also where no added token is one.
const TAGS: [&str; 2] = ["<think>", "</think>"];
/// What closes a thought where a template writes none: behind a prompt that ends its line, and behind any other.
const CLOSE: [&str; 2] = ["\n</think>\n\n", "</think>"];

/// Tokens that a prompt's end and an answer's beginning are searched for in common.
const MOST_SHARED: usize = 16;

/// What a template is tried with: what is asked, thought and answered.
pub const ASKED: &str = "Linesquestion";
pub const THOUGHT: &str = "Linesthought";
pub const ANSWERED: &str = "Linesanswer";

/// How answers go on behind prompts, learned from a template once.
#[derive(Debug)]
pub struct Served {
    matcher: AhoCorasick,
    /// What prompts end with that open a thought, beside `<think>`; empty where none is known.
    opens: String,
    /// What closes a thought before what is said; empty where answers begin with it themselves.
    close: Option<String>,
    /// What they begin with then.
    closes_itself: Option<String>,
    /// Whether the template writes thoughts at all.
    writes_thoughts: bool,
    /// What the template writes behind a conversation that ends with an answer as if it were asked again: no part of the turn.
    again: String,
    /// By which tokens a turn ends, and whether the template lacks one behind a conversation's last turn.
    stops: Vec<String>,
    lacks_end: bool,
    /// The header by which a turn ends that calls a tool, where nothing else ends it.
    call_end: Option<String>,
}

impl Served {
    /// Learns how thoughts are closed from a prompt and two answers to it, without a thought and with one.
    ///
    /// # Errors
    /// The added tokens cannot be searched for.
    pub fn learn(controls: &[String], prompt: &str, plain: &str, thought: Option<&str>) -> Result<Self, BuildError> {
        let tokens = controls.iter().map(String::as_str).chain(TAGS);
        let matcher = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(tokens)?;
        let mut served = Self {
            matcher,
            opens: String::new(),
            close: None,
            closes_itself: None,
            writes_thoughts: thought.is_some_and(|written| written.contains(THOUGHT)),
            again: String::new(),
            stops: Vec::new(),
            lacks_end: false,
            call_end: None,
        };
        served.again = served.asked_again(prompt, plain);
        let same = served.common(prompt, plain);
        let glue = plain.rfind(ANSWERED).and_then(|at| plain.get(same..at)).unwrap_or("");
        if let Some((before, close)) = thought.and_then(around_thought)
            && let Some(opened) = prompt.strip_prefix(before.trim_end_matches(is_space))
            && !close.trim_matches(is_space).is_empty()
            && (!opened.contains(close.trim_matches(is_space)) || opens_tag(before))
        {
            if !opened.contains(close.trim_matches(is_space)) {
                prompt[same..].trim_matches(is_space).clone_into(&mut served.opens);
            }
            // What answers begin with in any case closes nothing, unless that is all there is.
            let own = close.strip_suffix(glue).unwrap_or(close);
            served.closes_itself = own.chars().all(is_space).then(|| glue.trim_matches(is_space).to_owned());
            served.close = Some(if served.closes_itself.is_some() { String::new() } else { own.to_owned() });
        }
        Ok(served)
    }

    /// Whether there is nothing but white space and tokens behind the answer that a template was tried with, up to what it writes as
    /// if it were asked again.
    pub fn answer_ends(&self, plain: &str) -> bool {
        let behind = plain.rsplit_once(ANSWERED).map_or("", |(_, behind)| behind);
        let behind = behind.strip_suffix(&self.again).unwrap_or(behind);
        self.leaves_nothing(behind)
    }

    /// What stands behind the turn's own tokens from a token on by which messages start, where that is more than tokens.
    fn asked_again(&self, prompt: &str, plain: &str) -> String {
        let Some((_, behind)) = plain.rsplit_once(ANSWERED) else { return String::new() };
        let starts: Vec<&str> = self.leading(prompt).into_iter().map(|token| &prompt[token]).collect();
        let found = self.leading(behind);
        let first = found.iter().position(|token| starts.contains(&&behind[token.clone()]));
        match first.filter(|first| *first > 0 && !self.leaves_nothing(behind)) {
            Some(first) => behind[found[first].start..].to_owned(),
            None => String::new(),
        }
    }

    fn leaves_nothing(&self, text: &str) -> bool {
        let nothings = vec![""; self.matcher.patterns_len()];
        self.matcher.replace_all(text, &nothings).chars().all(is_space)
    }

    /// Takes up by which tokens answers end; `plain` is one without a thought. Says whether the template lacks an end behind it.
    pub fn end_by(&mut self, stops: Vec<String>, plain: &str) -> bool {
        self.stops = stops;
        self.lacks_end = !self.is_ended(plain.strip_suffix(&self.again).unwrap_or(plain));
        self.lacks_end
    }

    /// Takes up by which token a call ends that the template ends by nothing: the first behind it where its result follows.
    pub fn end_calls_by(&mut self, call: &str, result: &str) -> Option<String> {
        if !self.lacks_end || self.is_ended(call) {
            return None;
        }
        let same = self.common(call.trim_end_matches(is_space), result);
        let rest = &result[same..];
        self.call_end = self.leading(rest).into_iter().next().map(|token| rest[token].to_owned());
        self.call_end.clone()
    }

    /// The prompt and the answer: `written` is the conversation that ends with it, `turn` what is known of it. None where it cannot be
    /// told whether the answer belongs behind the prompt: it may have opened what nothing closes, or closed what the turn has.
    pub fn compose(&self, prompt: &str, written: &str, turn: &ServedTurn<'_>) -> Option<String> {
        let written = written.strip_suffix(&self.again).unwrap_or(written);
        let same = self.common(prompt, written);
        let mut row = prompt.to_owned();
        let mut answer = &written[same..];
        if same < prompt.len() {
            let thought = turn.thought.filter(|thought| !thought.chars().all(is_space));
            let is_written = |thought: &str| self.writes_thoughts || answer.contains(thought.trim_matches(is_space));
            if thought.is_some_and(is_written) {
                return None;
            }
            let (is_open, added) = (self.is_open(prompt), &prompt[same..]);
            let is_early = same < turn.before.len() && turn.before != prompt;
            if is_open {
                row.push_str(thought.unwrap_or(""));
                let default = CLOSE[usize::from(!prompt.ends_with('\n'))];
                row.push_str(self.close.as_deref().unwrap_or(default));
                let is_closed = |begins: &str| answer.trim_start_matches(is_space).starts_with(begins);
                if is_early
                    || self.closes_itself.as_deref().is_some_and(|begins| thought.is_some() || !is_closed(begins))
                {
                    return None;
                }
            }
            let rest = self.behind(&row, answer);
            let stands_once = rest.is_some() && (is_early || self.leaves_nothing(added));
            if !is_open && !stands_once && (is_early || !self.is_closed(added)) {
                return None;
            }
            answer = rest.unwrap_or(answer);
        }
        row.push_str(answer);
        let end = if turn.calls { self.call_end.as_ref() } else { self.stops.first() };
        if let (true, Some(end), false) = (self.lacks_end, end, self.is_ended(&row)) {
            row.truncate(row.trim_end_matches(is_space).len());
            row.push_str(end);
        }
        Some(row)
    }

    /// Whether what a prompt has beside a conversation opens nothing: blanks, or what ends with a tag that closes, or with a token
    /// of the name of the one it begins with.
    fn is_closed(&self, added: &str) -> bool {
        let added = added.trim_matches(is_space);
        let tokens: Vec<Range<usize>> = self.matcher.find_iter(added).map(|found| found.range()).collect();
        let is_pair = match tokens.as_slice() {
            [first, .., last] => {
                last.end == added.len() && name_of(&added[first.clone()]) == name_of(&added[last.clone()])
            }
            _ => false,
        };
        added.is_empty() || added.ends_with(TAGS[1]) || is_pair
    }

    fn is_open(&self, prompt: &str) -> bool {
        let prompt = prompt.trim_end_matches(is_space);
        opens_tag(prompt) || (!self.opens.is_empty() && prompt.ends_with(&self.opens))
    }

    /// Whether a token that ends a turn is among those that a text ends with.
    fn is_ended(&self, written: &str) -> bool {
        let is_end = |token: &str| self.stops.iter().chain(&self.call_end).any(|stop| stop == token);
        self.trailing(written).into_iter().any(|token| is_end(&written[token]))
    }

    /// How many bytes two texts have in common, up to a token in which they part.
    fn common(&self, one: &str, other: &str) -> usize {
        let mut same = one.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count();
        while !one.is_char_boundary(same) {
            same -= 1;
        }
        let cut = |text: &str| {
            let parts = |found: &aho_corasick::Match| found.start() < same && found.end() > same;
            self.matcher.find_iter(text).find(parts).map_or(same, |found| found.start())
        };
        cut(one).min(cut(other))
    }

    /// The answer without the tokens that `before` ends with already, nor the white space behind them; None where there are none.
    fn behind<'a>(&self, before: &str, answer: &'a str) -> Option<&'a str> {
        let (trailing, leading) = (self.trailing(before), self.leading(answer));
        let texts = |text: &str, tokens: &[Range<usize>]| -> Vec<String> {
            tokens.iter().map(|token| text[token.clone()].to_owned()).collect()
        };
        let (given, found) = (texts(before, &trailing), texts(answer, &leading));
        let n_most = found.len().min(given.len()).min(MOST_SHARED);
        let n_same = (1..=n_most).rev().find(|n| given[given.len() - n..] == found[..*n])?;
        let rest = &answer[leading[n_same - 1].end..];
        let blank = &before[before.trim_end_matches(is_space).len()..];
        Some(rest.strip_prefix(blank).unwrap_or(rest))
    }

    /// Tokens at the start, with nothing but white space before and between them.
    fn leading(&self, text: &str) -> Vec<Range<usize>> {
        let mut at = 0;
        let is_next = |found: &aho_corasick::Match| {
            let is_next = text[at..found.start()].chars().all(is_space);
            at = found.end();
            is_next
        };
        self.matcher.find_iter(text).take_while(is_next).map(|found| found.range()).collect()
    }

    /// Tokens at the end, with nothing but white space behind and between them.
    fn trailing(&self, text: &str) -> Vec<Range<usize>> {
        let tokens: Vec<Range<usize>> = self.matcher.find_iter(text).map(|found| found.range()).collect();
        let mut at = text.len();
        let n = tokens.iter().rev().take_while(|token| {
            let is_next = text[token.end..at].chars().all(is_space);
            at = token.start;
            is_next
        });
        let n = n.count();
        tokens[tokens.len() - n..].to_vec()
    }
}

/// What is known of a turn beside what is written of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServedTurn<'a> {
    /// What is written of the conversation before it, without a prompt.
    pub before: &'a str,
    /// Its thought, if it has one.
    pub thought: Option<&'a str>,
    /// Whether it calls a tool.
    pub calls: bool,
}

/// What a token is of: `thinking` of `<|START_THINKING|>` and of `<|END_THINKING|>`.
fn name_of(token: &str) -> String {
    let letters: String = token.chars().filter(|char| char.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    let parts = ["start", "end", "begin", "open", "close"];
    parts.iter().find_map(|part| letters.strip_prefix(part)).map_or(letters.clone(), str::to_owned)
}

/// What stands before a thought, and between it and what is said.
fn around_thought(written: &str) -> Option<(&str, &str)> {
    let (before, behind) = written.split_once(THOUGHT)?;
    Some((before, behind.split_once(ANSWERED)?.0))
}

fn opens_tag(prompt: &str) -> bool {
    prompt.trim_end_matches(is_space).ends_with(TAGS[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(prompt: &str, plain: &str, thought: Option<&str>) -> Served {
        let controls = ["<u>", "<a>", "<end>", "<text>", "<thinking>", "</thinking>"].map(str::to_owned);
        let mut served = Served::learn(&controls, prompt, plain, thought).unwrap();
        served.end_by(vec!["<end>".to_owned()], plain);
        served
    }

    fn row(prompt: &str, plain: &str, thought: Option<&str>) -> String {
        served(prompt, plain, thought).compose(prompt, plain, &ServedTurn::default()).unwrap()
    }

    #[test]
    fn an_answer_that_goes_on_with_the_prompt_stays() {
        assert_eq!(row("<u>q<a>", "<u>q<a>Linesanswer<end>\n", None), "<u>q<a>Linesanswer<end>\n");
    }

    #[test]
    fn a_thought_that_the_prompt_opens_is_closed_as_the_template_closes_it() {
        let plain = "<u>q<a>Linesanswer<end>";
        assert_eq!(row("<u>q<a><think>\n", plain, None), "<u>q<a><think>\n\n</think>\n\nLinesanswer<end>");
        assert_eq!(row("<u>q<a><think>", plain, None), "<u>q<a><think></think>Linesanswer<end>");
        let thought = "<u>q<a><thinking>Linesthought</thinking><text>Linesanswer<end>";
        let expected = "<u>q<a><thinking></thinking><text>Linesanswer<end>";
        assert_eq!(row("<u>q<a><thinking>", "<u>q<a><text>Linesanswer<end>", Some(thought)), expected);
        let words = "<u>q<a>\nMy steps:\nLinesthought\n[FINAL]\nLinesanswer<end>";
        let expected = "<u>q<a>\nMy steps:\n\n[FINAL]\nLinesanswer<end>";
        assert_eq!(row("<u>q<a>\nMy steps:\n", "<u>q<a>\nLinesanswer<end>", Some(words)), expected);
    }

    #[test]
    fn a_thought_that_is_closed_already_is_not_closed_twice() {
        let plain = "<u>q<a></think>Linesanswer<end>";
        assert_eq!(row("<u>q<a><think></think>", plain, None), "<u>q<a><think></think>Linesanswer<end>");
        assert_eq!(row("<u>q<a><think>", plain, None), "<u>q<a><think></think>Linesanswer<end>");
        let empty = "<u>q<a><think></think>Linesanswer<end>";
        let thought = "<u>q<a><think>\nLinesthought\n</think>\nLinesanswer<end>";
        let expected = "<u>q<a><think>\n\n</think>\nLinesanswer<end>";
        assert_eq!(row("<u>q<a><think>\n", empty, Some(thought)), expected);
    }

    #[test]
    fn words_before_a_header_that_both_write_may_open_what_nothing_closes() {
        let turn = ServedTurn { before: "<u>q", ..ServedTurn::default() };
        let (prompt, plain) = ("<u>q<a><thinking>analysis<text>", "<u>q<a><text>Linesanswer<end>");
        assert_eq!(served(prompt, plain, None).compose(prompt, plain, &turn), None);
    }

    #[test]
    fn what_a_prompt_opens_must_be_known_to_be_closed() {
        let plain = "<u>q<a>Linesanswer<end>";
        for prompt in ["<u>q<a><thinking>", "<u>q<a>My steps:\n", "<u>q<a><thinking>well"] {
            assert_eq!(served(prompt, plain, None).compose(prompt, plain, &ServedTurn::default()), None, "{prompt}");
        }
        assert_eq!(row("<u>q<a><thinking></thinking>", plain, None), "<u>q<a><thinking></thinking>Linesanswer<end>");
        // The template writes a thought without the words by which the prompt opens it.
        let thought = "<u>q<a>Linesthought\n[FINAL]\nLinesanswer<end>";
        assert_eq!(row("<u>q<a>My steps:\n", plain, Some(thought)), "<u>q<a>My steps:\n\n[FINAL]\nLinesanswer<end>");
        let closed = "<u>q<a><thinking>\nLinesthought</thinking>Linesanswer<end>";
        let prompt = "<u>q<a><thinking>\n</thinking>";
        assert_eq!(row(prompt, plain, Some(closed)), "<u>q<a><thinking>\n</thinking>Linesanswer<end>");
    }

    #[test]
    fn nothing_but_tokens_may_stand_behind_an_answer() {
        let learned = served("<u>q<a>", "<u>q<a>Linesanswer<end>", None);
        assert!(learned.answer_ends("<u>q<a>Linesanswer <end>\n<a>"));
        assert!(!learned.answer_ends("<u>q<a>Linesanswer<end>now write"));
    }

    #[test]
    fn a_turn_that_nothing_ends_is_ended() {
        assert_eq!(row("<u>q<a>", "<u>q<a>Linesanswer\n", None), "<u>q<a>Linesanswer<end>");
        let learned = served("<u>q<a>", "<u>q<a>Linesanswer", None);
        assert_eq!(learned.compose("<u>q<a>", "<u>q<a>call<end>", &ServedTurn::default()).unwrap(), "<u>q<a>call<end>");
    }

    #[test]
    fn a_thought_that_the_prompt_does_not_fit_makes_no_row() {
        let thought = "<u>q<a><think>\nLinesthought\n</think>\n\nLinesanswer<end>";
        let learned = served("<u>q<a><think>\n\n</think>\n\n", "<u>q<a>Linesanswer<end>", Some(thought));
        let turn = ServedTurn { thought: Some("t"), ..ServedTurn::default() };
        let written = "<u>q<a><think>\nt\n</think>\n\nb<end>";
        assert_eq!(learned.compose("<u>q<a><think>\n\n</think>\n\n", written, &turn), None);
        let early = ServedTurn { before: "<u>q<end>", ..ServedTurn::default() };
        assert_eq!(learned.compose("<u>q /no<end><a><think></think>", "<u>q<end><a>b<end>", &early), None);
    }

    #[test]
    fn what_answers_begin_with_is_not_written_twice() {
        let thought = "<u>q<a><thinking>Linesthought</thinking><text>Linesanswer<end>";
        let learned = served("<u>q<a><thinking>", "<u>q<a><text>Linesanswer<end>", Some(thought));
        let call = learned.compose("<u>q<a><thinking>", "<u>q<a>call<end>", &ServedTurn::default());
        assert_eq!(call.unwrap(), "<u>q<a><thinking></thinking>call<end>");
        let words = "<u>q<a><think>\nLinesthought\n</think>\n\nAnswer:\nLinesanswer<end>";
        let expected = "<u>q<a><think>\n\n</think>\n\nAnswer:\nLinesanswer<end>";
        assert_eq!(row("<u>q<a><think>\n", "<u>q<a>Answer:\nLinesanswer<end>", Some(words)), expected);
    }

    #[test]
    fn a_call_that_nothing_ends_is_ended_by_the_header_of_its_result() {
        let mut learned = served("<u>q<a>", "<u>q<a>Linesanswer", None);
        learned.end_by(vec!["<u>".to_owned()], "<u>q<a>Linesanswer");
        assert_eq!(
            learned.end_calls_by("<u>q<a>call</thinking>\n", "<u>q<a>call</thinking>\n<text>r").as_deref(),
            Some("<text>")
        );
        let call = |calls| {
            learned
                .compose("<u>q<a>", "<u>q<a>call</thinking>", &ServedTurn { calls, ..ServedTurn::default() })
                .unwrap()
        };
        assert_eq!(call(true), "<u>q<a>call</thinking><text>");
        assert_eq!(call(false), "<u>q<a>call</thinking><u>");
    }

    #[test]
    fn what_a_template_writes_as_if_it_were_asked_again_is_left_out() {
        let plain = "<u>q<a>Linesanswer<end><u>write an action<end>";
        let learned = served("<u>q<a>", plain, None);
        assert!(learned.answer_ends(plain));
        assert_eq!(learned.compose("<u>q<a>", plain, &ServedTurn::default()).unwrap(), "<u>q<a>Linesanswer<end>");
        assert!(!served("<u>q<a>", "<u>q<a>Linesanswer<u>write", None).answer_ends("<u>q<a>Linesanswer<u>write"));
    }

    #[test]
    fn a_turn_whose_end_is_not_the_last_token_is_ended() {
        assert_eq!(row("<u>q<a>", "<u>q<a>Linesanswer<end>\n<text>", None), "<u>q<a>Linesanswer<end>\n<text>");
    }

    #[test]
    fn a_thought_that_the_template_leaves_out_stands_in_the_row() {
        let learned = served("<u>q<a><think>\n", "<u>q<a>Linesanswer<end>", None);
        let turn = ServedTurn { thought: Some("t"), ..ServedTurn::default() };
        let row = learned.compose("<u>q<a><think>\n", "<u>q<a>b<end>", &turn).unwrap();
        assert_eq!(row, "<u>q<a><think>\nt\n</think>\n\nb<end>");
    }
}
