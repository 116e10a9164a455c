//! Chat templates: how a conversation is written as text.

mod chat_template;
mod jinja;
mod marks;
mod native;
mod python_text;
mod registry;
mod rendering;
mod settings;
mod targets;
mod values;

pub use chat_template::{ChatTemplate, RowRule, TemplateSource};
pub use jinja::{JinjaChat, JinjaInput, JinjaTemplate, MAX_TEMPLATE_BYTES};
pub(crate) use registry::load_template;
pub use registry::{TEMPLATES, find_template};
pub use rendering::{Piece, Rendering, Segment, SegmentKind, Target, TextPlace, TrainedBytes};
pub use targets::EmptyThink;
