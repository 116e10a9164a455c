//! Everything that can go wrong: a row that is refused, or a caller's mistake that stops the call.

use std::fmt;

use thiserror::Error;

/// Why a row was refused. The names are part of the contract: tables and checks group by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The text is not a conditioned conversation.
    InvalidConversation,
    /// A weight is negative, out of `f32`'s range, or positive on a role that is never trained.
    InvalidWeight,
    /// Every weight is zero.
    NothingTrained,
    /// The template would leave out a part of the conversation.
    NotRendered,
    /// The template raises an exception for the conversation, or exceeds a limit.
    TemplateRefuses,
    /// The template does not pass a text on as it is, so what is text and what is a control token cannot be told.
    TemplateReadsContent,
    /// A tool call's arguments are no JSON object.
    InvalidArguments,
    /// What precedes a target is not what a served model is given there.
    PromptDiffers,
    /// A target is not what a served model writes there.
    TargetDiffers,
    /// A target does not end with a token that ends a turn.
    NoEndOfTurn,
    /// Text from a message became a control or added token.
    ControlTokenInContent,
    /// Text from a message holds what no token stands for.
    NoToken,
    /// The row has more tokens than `max_tokens`.
    OverLength,
}

impl Reason {
    /// The name that is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidConversation => "invalid_conversation",
            Self::InvalidWeight => "invalid_weight",
            Self::NothingTrained => "nothing_trained",
            Self::NotRendered => "not_rendered",
            Self::TemplateRefuses => "template_refuses",
            Self::TemplateReadsContent => "template_reads_content",
            Self::InvalidArguments => "invalid_arguments",
            Self::PromptDiffers => "prompt_differs",
            Self::TargetDiffers => "target_differs",
            Self::NoEndOfTurn => "no_end_of_turn",
            Self::ControlTokenInContent => "control_token_in_content",
            Self::NoToken => "no_token",
            Self::OverLength => "over_length",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// One refused row: a reason to group by and a detail for whoever mends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Why.
    pub reason: Reason,
    /// What was found, where, and what was expected.
    pub detail: String,
}

impl Rejection {
    /// A rejection as an error, so that `?` ends the row.
    pub fn error(reason: Reason, detail: impl Into<String>) -> Error {
        Error::Rejected(Self { reason, detail: detail.into() })
    }
}

/// What a call can fail with. Only [`Error::Rejected`] concerns a single row; a batch collects those and goes on.
#[derive(Debug, Error)]
pub enum Error {
    /// A row is refused.
    #[error("{}: {}", .0.reason, .0.detail)]
    Rejected(Rejection),

    /// The tokenizer file cannot be read or understood.
    #[error(
        "{path}: {problem}; expected a tokenizer in Hugging Face's tokenizer.json form. Save it with \
         AutoTokenizer.from_pretrained(…).save_pretrained(folder) and pass folder/tokenizer.json"
    )]
    TokenizerFile {
        /// The file.
        path: String,
        /// What was found.
        problem: String,
    },

    /// The tokenizer is readable, but its ids cannot be promised to equal Hugging Face's.
    #[error("{path}: {problem}. {remedy}")]
    UnsupportedTokenizer {
        /// The file.
        path: String,
        /// What was found.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },

    /// The tokenizer failed on a text.
    #[error(
        "{path}: the tokenizer cannot encode the {n_bytes} bytes of text at byte {start} of a rendered conversation: \
         {problem}. Give it a tokenizer that covers every text, such as one with a byte-level alphabet"
    )]
    Encode {
        /// The tokenizer file.
        path: String,
        /// Where the text begins in the rendered conversation, in bytes.
        start: usize,
        /// Its length in bytes.
        n_bytes: usize,
        /// What the tokenizer said.
        problem: String,
    },

    /// No such template.
    #[error("template {name:?} is unknown; expected one of: {known}")]
    UnknownTemplate {
        /// What was asked for.
        name: String,
        /// The registry's names.
        known: String,
    },

    /// The template writes a control token that the tokenizer does not have.
    #[error(
        "template {template:?} writes the control token {token:?}, which is not among the added tokens of {path}. Add it \
         (tokenizer.add_special_tokens), resize the model's embeddings and save both, or choose another template"
    )]
    MissingControlToken {
        /// The template.
        template: String,
        /// Its token.
        token: String,
        /// The tokenizer file.
        path: String,
    },

    /// The tokenizer matches a control token in a way that the renderer does not follow.
    #[error(
        "template {template:?} writes the control token {token:?}, which {path} declares with {flag}: Hugging Face would \
         tokenize the text around it differently. Declare the token with {flag} off, or choose another template"
    )]
    UnsupportedControlToken {
        /// The template.
        template: String,
        /// Its token.
        token: String,
        /// The tokenizer file.
        path: String,
        /// The added token's flag.
        flag: &'static str,
    },

    /// A chat template cannot be used, or not for this conversation.
    #[error("{origin}: {problem}")]
    Template {
        /// Where the template is from.
        origin: String,
        /// What is wrong.
        problem: String,
    },

    /// A chat template's input cannot be used.
    #[error("{name}: {problem}")]
    TemplateInput {
        /// What is given.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
    },

    /// `over_length` names no rule.
    #[error("over_length {0:?} is unknown; expected one of: drop, cut_at_turn")]
    UnknownOverLength(String),

    /// `empty_think` names no rule.
    #[error("empty_think {0:?} is unknown; expected one of: mask, train")]
    UnknownEmptyThink(String),

    /// `max_tokens` leaves no room.
    #[error("max_tokens is {0}; expected at least 1")]
    MaxTokens(i64),

    /// The lists of a batch do not belong together.
    #[error("{n_keys} keys and {n_conversations} conversations; expected one key per conversation")]
    UnequalLengths {
        /// Keys given.
        n_keys: usize,
        /// Conversations given.
        n_conversations: usize,
    },

    /// The batch does not fit Arrow's 32-bit offsets.
    #[error("the batch holds {n} {what}; one batch holds at most 2147483647. Encode fewer rows at a time")]
    BatchTooLarge {
        /// How many.
        n: usize,
        /// Of what.
        what: &'static str,
    },

    /// The record batch cannot be built or handed over.
    #[error("the Arrow record batch cannot be made: {0}")]
    Arrow(#[from] arrow_schema::ArrowError),

    /// Bins without room.
    #[error("capacity is {0}; expected at least 1")]
    PackCapacity(i64),

    /// A length that no bin can hold.
    #[error("lengths[{index}] is {length}; expected 1 to {capacity}, the capacity. Drop or cut the row first")]
    PackLength {
        /// Its place in the list.
        index: usize,
        /// The length, in tokens.
        length: i64,
        /// A bin's room, in tokens.
        capacity: i64,
    },

    /// More rows than a packing counts.
    #[error("{0} lengths; expected fewer than 4294967295. Pack them in parts")]
    PackRows(usize),

    /// A signature's setting leaves nothing to make one of.
    #[error("{name} is {value}; expected at least 1")]
    SignatureSetting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: usize,
    },

    /// The bands do not fit the signature, or it is too long.
    #[error(
        "{bands} bands of {rows} rows need {} of {permutations} permutations; expected no more than there are, and at most \
         65536 permutations. Choose fewer bands, rows or permutations",
        .bands.saturating_mul(*.rows)
    )]
    SignatureBands {
        /// Numbers per signature.
        permutations: usize,
        /// Bands per signature.
        bands: usize,
        /// Numbers per band.
        rows: usize,
    },

    /// No similarity is as low or as high.
    #[error("min_similarity is {0}; expected 0 to 1")]
    MinSimilarity(f64),

    /// The columns of rows to compare do not belong together.
    #[error("{n_sketches} sketches, {n_bands} bands and {n_groups} groups; expected one of each per row")]
    PairColumns {
        /// Sketches given.
        n_sketches: usize,
        /// Rows of bands given.
        n_bands: usize,
        /// Groups given.
        n_groups: usize,
    },

    /// A sketch holds more than the settings say.
    #[error(
        "sketches[{row}] holds {n} hashes; expected at most {sketch_size}, the sketch_size. Keep the least hashes of each row"
    )]
    SketchLength {
        /// Its row.
        row: usize,
        /// Its hashes.
        n: usize,
        /// The most it may hold.
        sketch_size: usize,
    },

    /// A sketch is not in order, or holds a hash twice.
    #[error(
        "sketches[{row}][{at}] is no greater than the hash before it; expected distinct hashes, ascending. Sort them"
    )]
    SketchOrder {
        /// Its row.
        row: usize,
        /// The hash's place in it.
        at: usize,
    },

    /// A reader's setting is out of range.
    #[error("{name} is {value}; expected 1 to 536870912 bytes")]
    ReaderSetting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: usize,
    },

    /// The source of records fails.
    #[error(
        "{path}, byte {at}: {problem}; expected to read on. Nothing after it was read: look after the file and read it again"
    )]
    Read {
        /// The file, or what the source is.
        path: String,
        /// Where, in bytes of the source.
        at: u64,
        /// What the source said.
        problem: String,
    },

    /// A file of records cannot be opened.
    #[error("{path}: {problem}; expected a file of JSON lines or one JSON array")]
    OpenRecords {
        /// The file.
        path: String,
        /// What the system said.
        problem: String,
    },

    /// A folder of token rows cannot be written.
    #[error("{path}: {problem}; expected to write there. Make room or choose another folder, and run again")]
    WriteRows {
        /// The file or folder.
        path: String,
        /// What the system said.
        problem: String,
    },

    /// A bin does not hold the longest row.
    #[error("capacity is {capacity}, max_tokens is {max_tokens}; expected a capacity of at least max_tokens")]
    Capacity {
        /// Tokens per bin.
        capacity: i64,
        /// Tokens per row, at most.
        max_tokens: usize,
    },

    /// `n_threads` leaves nobody to work, or too many.
    #[error("n_threads is {0}; expected 1 to 1024, or none for all processors")]
    Threads(usize),
}
