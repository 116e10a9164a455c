//! Chat templates written natively, each with the text of the published one.

mod alternation;
mod chatml;
mod llama2;
mod llama3;
mod mistral;
mod nat_exact;
mod qwen3;
mod wording;
mod zephyr;

pub(super) use chatml::ChatMl;
pub(super) use llama2::Llama2;
pub(super) use llama3::Llama3;
pub(super) use mistral::Mistral;
pub(super) use nat_exact::NatExact;
pub(super) use qwen3::Qwen3;
pub(super) use zephyr::Zephyr;
