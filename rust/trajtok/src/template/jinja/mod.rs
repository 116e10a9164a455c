//! Chat templates of Jinja text, and where in what they write the trained turns stand.

mod chat;
mod date;
mod engine;
mod messages;
mod passed_on;
mod served;
mod turn_ends;
mod written;

pub use chat::JinjaChat;
pub use engine::{JinjaInput, JinjaTemplate, MAX_TEMPLATE_BYTES};
