use proptest::prelude::*;

use super::*;
use crate::fixture::{alternating, check_whole, conversation_json, encoder_with, pieces, trained_text};

const THINK: [&str; 2] = ["<think>", "</think>"];

fn template(tokens: &[&'static str], settings: &str, empty_think: EmptyThink) -> Result<Qwen3, Error> {
    let source = TemplateSource { settings, empty_think, ..TemplateSource::named("qwen3") };
    Qwen3::new(&source, &encoder_with(tokens))
}

fn render(json: &str) -> Result<Rendering, Error> {
    let template = template(&[], "{}", EmptyThink::Mask)?;
    template.render(&Conversation::parse(json.as_bytes())?, false)
}

fn problem(json: &str) -> String {
    render(json).unwrap_err().to_string()
}

#[test]
fn an_empty_think_is_context_or_a_part_of_the_target() {
    let json = conversation_json(&[("user", "q", 0.0), ("assistant", " a", 0.5)]);
    let conversation = Conversation::parse(json.as_bytes()).unwrap();
    let masked = template(&THINK, "{}", EmptyThink::Mask).unwrap().render(&conversation, false).unwrap();
    let answer = [
        ("assistant\n", false, 0.0),
        ("<think>", true, 0.0),
        ("\n\n", false, 0.0),
        ("</think>", true, 0.0),
        ("\n\n", false, 0.0),
        (" a", false, 0.5),
        ("<|im_end|>", true, 0.5),
        ("\n", false, 0.0),
    ];
    assert!(pieces(&masked).ends_with(&answer), "{:?}", pieces(&masked));
    let trained = template(&THINK, "{}", EmptyThink::Train).unwrap().render(&conversation, false).unwrap();
    assert_eq!(trained_text(&trained), "<think>\n\n</think>\n\n a<|im_end|>");
    let off = template(&THINK, r#"{"enable_thinking":false}"#, EmptyThink::Train).unwrap();
    assert_eq!(trained_text(&off.render(&conversation, false).unwrap()), " a<|im_end|>");
}

#[test]
fn tools_calls_and_responses_are_text_whatever_they_hold() {
    let json = r#"{"tools":"[{\"b\": 1.0, \"a\": \"<|im_end|>\u00e9\"}]","messages":[
        {"role":"system","content":"s","weight":0},{"role":"user","content":"q","weight":0},
        {"role":"assistant","content":"c","weight":1,"reasoning":"\nr\n","tool_calls":[
            {"name":"<|im_end|>","arguments":"{\"x\":[1,null]}"},{"name":"u","arguments":"{}"}]},
        {"role":"tool","content":"<|im_start|>","weight":0},{"role":"tool","content":"2","weight":0},
        {"role":"assistant","content":"d","weight":0}]}"#;
    let rendering = render(json).unwrap();
    let (head, rest) = rendering.text.split_once("</tool_call><|im_end|>\n").unwrap();
    assert!(head.starts_with("<|im_start|>system\ns\n\n# Tools\n\n"), "{head}");
    assert!(head.contains("<tools>\n{\"b\": 1.0, \"a\": \"<|im_end|>é\"}\n</tools>\n\n"), "{head}");
    let said = "<think>\nr\n</think>\n\nc\n<tool_call>\n{\"name\": \"<|im_end|>\", \"arguments\": {\"x\": [1, null]}}\n\
                </tool_call>\n<tool_call>\n{\"name\": \"u\", \"arguments\": {}}\n</tool_call><|im_end|>";
    let expected = format!(
        "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n{said}\n<|im_start|>user\n<tool_response>\n<|im_start|>\n\
         </tool_response>\n<tool_response>\n2\n</tool_response><|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\nd\
         <|im_end|>\n"
    );
    assert_eq!(rest, expected);
    assert_eq!(trained_text(&rendering), said);
    let n_controls = pieces(&rendering).iter().filter(|piece| piece.1).count();
    assert_eq!(n_controls, 14, "two for each of five turns, and <tool_call>, which this tokenizer has, four times");
    check_whole(&rendering);
}

#[test]
fn reasoning_that_a_later_question_takes_away_is_a_target_that_differs() {
    let turns = |weight: f64| {
        format!(
            r#"{{"messages":[{{"role":"user","content":"q","weight":0}},
            {{"role":"assistant","content":"a","weight":{weight:?},"reasoning":"r"}},
            {{"role":"user","content":"p","weight":0}},{{"role":"assistant","content":"b","weight":1,"reasoning":"s"}}]}}"#
        )
    };
    assert_eq!(trained_text(&render(&turns(0.0)).unwrap()), "<think>\ns\n</think>\n\nb<|im_end|>");
    assert!(problem(&turns(1.0)).starts_with("target_differs: messages[1]"), "{}", problem(&turns(1.0)));
}

#[test]
fn a_response_of_a_tool_is_no_question() {
    let json = r#"{"messages":[{"role":"user","content":"q","weight":0},
        {"role":"assistant","content":"a","weight":0,"reasoning":"r"},
        {"role":"user","content":"<tool_response>x</tool_response>","weight":0},
        {"role":"assistant","content":"b","weight":1}]}"#;
    assert!(render(json).unwrap().text.contains("<think>\nr\n</think>\n\na<|im_end|>"));
}

#[test]
fn weights_of_characters_follow_reasoning_and_content() {
    let json = r#"{"messages":[{"role":"user","content":"q","weight":0},{"role":"assistant","weight":0,
        "content":"\n<think>\nabc\n</think>\n\ndef","ranges":[{"field":"content","start":10,"end":12,"weight":1},
        {"field":"content","start":24,"end":26,"weight":1}]}]}"#;
    assert_eq!(trained_text(&render(json).unwrap()), "bcef");
    let json = r#"{"messages":[{"role":"user","content":"q","weight":0},{"role":"assistant","weight":1,"reasoning":"\nabc",
        "content":"\ndef","ranges":[{"field":"content","start":1,"end":2,"weight":0},
        {"field":"reasoning","start":0,"end":2,"weight":0}]}]}"#;
    assert_eq!(trained_text(&render(json).unwrap()), "<think>\nbc\n</think>\n\nef<|im_end|>");
}

#[test]
fn what_the_template_leaves_out_of_a_target_is_refused() {
    let said = |content: &str| problem(&conversation_json(&[("user", "q", 0.0), ("assistant", content, 1.0)]));
    let expected = "not_rendered: messages[1]: the template leaves out its content around </think>";
    assert_eq!(said("x<think>a</think>b"), expected);
    assert_eq!(said("a</think>b</think>c"), expected);
    let json = r#"{"messages":[{"role":"system","content":"s","weight":0},
        {"role":"assistant","content":"a","weight":1,"reasoning":"r"}]}"#;
    assert_eq!(problem(json), "not_rendered: messages[1]: the template leaves out its reasoning");
}

#[test]
fn what_cannot_be_rendered_is_named() {
    assert!(problem(r#"{"messages":[]}"#).starts_with("template_refuses: "));
    assert!(problem(&conversation_json(&[("assistant", "a", 1.0)])).starts_with("template_refuses: "));
    let tools = r#"{"tools":"{}","messages":[{"role":"user","content":"q","weight":0}]}"#;
    assert_eq!(problem(tools), "invalid_conversation: tools: expected a list of tool schemas, found map");
    let arguments =
        r#"{"messages":[{"role":"assistant","content":"","weight":0,"tool_calls":[{"name":"t","arguments":"1"}]}]}"#;
    assert!(
        problem(arguments).starts_with("invalid_arguments: messages[0].tool_calls[0].arguments: expected the text")
    );
    let error = template(&[], r#"{"enable_thinking":"no"}"#, EmptyThink::Mask).err().unwrap().to_string();
    assert_eq!(error, "settings: enable_thinking is no; expected true or false");
}

proptest! {
    #[test]
    fn renderings_are_whole_and_the_last_target_is_what_is_said(turns in alternating(), prompt: bool) {
        let n_context = turns.len() - 1;
        let turns: Vec<_> = (0..).zip(turns).map(|(at, turn)| (turn.0, turn.1, if at < n_context { 0.0 } else { turn.2 })).collect();
        let template = template(&THINK, "{}", EmptyThink::Train).unwrap();
        let rendering =
            template.render(&Conversation::parse(conversation_json(&turns).as_bytes()).unwrap(), prompt).unwrap();
        check_whole(&rendering);
        if !prompt && turns[n_context].2 > 0.0 {
            let said = turns[n_context].1.trim_start_matches('\n');
            prop_assert_eq!(trained_text(&rendering), format!("<think>\n\n</think>\n\n{said}<|im_end|>"));
        }
    }
}
