//! What a served model is given: asked of the side that serves.

use std::ops::Range;

/// What a served model is given before a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// As text.
    pub text: String,
    /// Its pieces, which touch each other from the first byte to the last. Each is tokenized apart from all others.
    pub pieces: Vec<Piece>,
}

/// A control token, or text between two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Where it stands in the prompt's text.
    pub bytes: Range<usize>,
    /// Whether it is a control token.
    pub is_control: bool,
}

/// The serving side of one conversation.
pub trait Served {
    /// The prompt before message `n_before`; `None` where it cannot be told in pieces.
    fn prompt(&mut self, n_before: usize) -> Option<Prompt>;

    /// Appends the ids of a piece of the prompt that was asked for last; `None` where there are none.
    fn piece_ids(&mut self, piece: usize, ids: &mut Vec<u32>) -> Option<()>;
}
