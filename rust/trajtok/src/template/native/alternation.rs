//! The order that the `[INST]` formats ask for: a system message if there is one, then user and assistant in turn.

use crate::conversation::{Conversation, Role};
use crate::error::{Error, Reason, Rejection};
use crate::template::chat_template::refuse_extras;

/// How many messages stand before the first user message: 0, or 1 for a system message.
///
/// # Errors
/// [`Error::Rejected`] with `template_refuses` where the roles stand otherwise, with `not_rendered` for what these formats
/// have no place for.
pub fn n_before_turns(template: &str, conversation: &Conversation<'_>) -> Result<usize, Error> {
    refuse_extras(template, conversation)?;
    let messages = &conversation.messages;
    let Some(first) = messages.first() else {
        return Err(Rejection::error(
            Reason::TemplateRefuses,
            format!("template {template} takes one message or more"),
        ));
    };
    let n_before = usize::from(first.role == Role::System);
    if messages.len() == n_before {
        let detail =
            format!("template {template} writes a system message into the user message behind it; there is none");
        return Err(Rejection::error(Reason::NotRendered, detail));
    }
    let expected = [Role::User, Role::Assistant].into_iter().cycle();
    match messages[n_before..].iter().zip(expected).position(|(message, role)| message.role != role) {
        None => Ok(n_before),
        Some(at) => {
            let found = messages[n_before + at].role.as_str();
            let detail = format!(
                "messages[{}] ({found}): template {template} takes user and assistant in turn, the user first, behind an \
                 optional system message",
                n_before + at
            );
            Err(Rejection::error(Reason::TemplateRefuses, detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::conversation_json;

    fn n_before(roles: &[&'static str]) -> Result<usize, String> {
        let turns: Vec<_> = roles.iter().map(|role| (*role, "a", 0.0)).collect();
        let json = conversation_json(&turns);
        n_before_turns("t", &Conversation::parse(json.as_bytes()).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn user_and_assistant_take_turns_behind_a_system_message() {
        assert_eq!(n_before(&["user"]), Ok(0));
        assert_eq!(n_before(&["user", "assistant", "user", "assistant"]), Ok(0));
        assert_eq!(n_before(&["system", "user", "assistant"]), Ok(1));
    }

    #[test]
    fn every_other_order_is_refused_with_its_place() {
        for (roles, at) in [
            (&["assistant"][..], "messages[0] (assistant)"),
            (&["system", "assistant"], "messages[1] (assistant)"),
            (&["user", "user"], "messages[1] (user)"),
            (&["user", "assistant", "tool"], "messages[2] (tool)"),
            (&["user", "tool"], "messages[1] (tool)"),
            (&["user", "system"], "messages[1] (system)"),
            (&["system", "system"], "messages[1] (system)"),
        ] {
            let problem = n_before(roles).unwrap_err();
            assert!(problem.starts_with(&format!("template_refuses: {at}: template t takes user")), "{problem}");
        }
        assert!(n_before(&[]).unwrap_err().starts_with("template_refuses: template t takes one message"));
        assert!(
            n_before(&["system"]).unwrap_err().starts_with("not_rendered: template t writes a system message into")
        );
    }
}
