//! Hugging Face chat templates: Jinja as transformers runs it, in a sandbox with limits.
//!
//! What transformers gives a template beside Jinja is here: `tojson`, `raise_exception`, loop controls, `{% generation %}`
//! and Python's methods of strings and dicts. Where the two engines would print other text, this one refuses.

#![allow(clippy::needless_pass_by_value, reason = "the engine hands arguments over by value")]

use std::borrow::Cow;
use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Environment, Error as Fault, State, UndefinedBehavior};

use crate::error::Error;
use crate::template::jinja::date::Date;
use crate::template::python_text::{PythonText, dumps, method, refuse};
use crate::template::settings::{describe, read_settings};
use crate::template::values::{read_json, with_reasoning};

/// The longest template.
pub const MAX_TEMPLATE_BYTES: usize = 1 << 18;
/// Instructions that one rendering may take, of the template engine's own kind.
const FUEL: u64 = 20_000_000;
/// What a rendering may write: so much, and so many times what it is given.
const MAX_OUTPUT: usize = 1 << 20;
const MAX_GROWTH: usize = 16;
const NAME: &str = "template";
/// The setting that says which day it is, for templates that write the date.
const TODAY: &str = "today";
const NO_DATE: &str = "it asks for today's date, so the same row would differ from day to day; pin it by the setting \"today\", \
                       such as \"2026-01-31\"";

/// A compiled chat template.
pub struct JinjaTemplate {
    environment: Environment<'static>,
    source: String,
    origin: String,
}

/// What a template is given, as JSON text.
pub struct JinjaInput<'a> {
    /// An array of messages.
    pub messages: &'a str,
    /// An array of tool schemas, if there are any.
    pub tools: Option<&'a str>,
    /// Whether the start of an assistant's turn is written at the end.
    pub add_generation_prompt: bool,
    /// An object of everything else: special tokens, `enable_thinking` and the like.
    pub settings: &'a str,
}

impl JinjaInput<'_> {
    fn n_bytes(&self) -> usize {
        self.messages.len() + self.tools.map_or(0, str::len) + self.settings.len()
    }
}

impl JinjaTemplate {
    /// Compiles a template; `origin` names it in messages.
    ///
    /// # Errors
    /// [`Error::Template`]: it is too large, or uses what is not supported here.
    pub fn new(source: &str, origin: String) -> Result<Self, Error> {
        let failed = |problem: String| Error::Template { origin: origin.clone(), problem };
        if source.len() > MAX_TEMPLATE_BYTES {
            return Err(failed(format!("{} bytes; expected at most {MAX_TEMPLATE_BYTES}", source.len())));
        }
        let mut environment = environment().map_err(|fault| failed(describe(&fault)))?;
        environment
            .add_template_owned(NAME, without_generation_tags(source).into_owned())
            .map_err(|fault| failed(describe(&fault)))?;
        Ok(Self { environment, source: source.to_owned(), origin })
    }

    /// The text for a conversation.
    ///
    /// # Errors
    /// [`Error::TemplateInput`]: the input is not JSON, or Python would read it otherwise. [`Error::Template`]: the template
    /// raises an exception, needs what is not supported here, or exceeds a limit.
    pub fn render(&self, input: &JinjaInput<'_>) -> Result<String, Error> {
        let read = |name: &'static str, text| read_json(text).map_err(|problem| Error::TemplateInput { name, problem });
        let messages = with_reasoning(&read("messages", input.messages)?)
            .map_err(|fault| Error::TemplateInput { name: "messages", problem: describe(&fault) })?;
        let tools = input.tools.map_or(Ok(Value::from(())), |tools| read("tools", tools))?;
        let settings = read_settings(input.settings)?;
        self.render_values(messages, &tools, input.add_generation_prompt, &settings, input.n_bytes())
            .map_err(|problem| Error::Template { origin: self.origin.clone(), problem })
    }

    /// The text for messages that are values already; `n_bytes` is their size.
    pub(crate) fn render_values(
        &self,
        messages: Value,
        tools: &Value,
        add_generation_prompt: bool,
        settings: &[(String, Value)],
        n_bytes: usize,
    ) -> Result<String, String> {
        let mut context = vec![
            ("messages".to_owned(), messages),
            ("tools".to_owned(), tools.clone()),
            ("documents".to_owned(), Value::from(())),
            ("add_generation_prompt".to_owned(), Value::from(add_generation_prompt)),
        ];
        context.extend_from_slice(settings);
        let template = self.environment.get_template(NAME).map_err(|fault| describe(&fault))?;
        let mut output = Bounded { bytes: Vec::new(), limit: MAX_OUTPUT + MAX_GROWTH * n_bytes };
        template.render_captured_to(Value::from_pairs(context), &mut output).map_err(|fault| describe(&fault))?;
        String::from_utf8(output.bytes).map_err(|_| "it writes what is not UTF-8".to_owned())
    }

    /// The template's text.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// Where the template is from.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }
}

/// What is written, up to a limit.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.limit {
            return Err(io::Error::other(format!("it writes more than {} bytes", self.limit)));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Jinja as transformers sets it up.
fn environment() -> Result<Environment<'static>, Fault> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(200);
    environment.set_unknown_method_callback(method);
    environment.set_formatter(|output, _, value| {
        if let Some(text) = value.as_str() {
            return output.write_str(text).map_err(Fault::from);
        }
        let text = PythonText::of(value)?;
        output.write_str(&text).map_err(Fault::from)
    });
    environment.add_filter("tojson", to_json);
    environment.add_filter("string", |value: &Value| PythonText::of(value));
    environment.add_filter("join", join);
    environment.add_filter("trim", |state: &mut State<'_, '_>, value: &Value, rest: Rest<Value>| {
        method(state, &Value::from(PythonText::of(value)?), "strip", &rest.0)
    });
    environment.add_test("iterable", |value: &Value| {
        let is_one = matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Iterable);
        is_one || value.is_undefined()
    });
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Undefined)
    });
    environment.add_function("raise_exception", |message: &Value| -> Result<Value, Fault> {
        Err(refuse(format!("it raises an exception: {message}")))
    });
    environment.add_function("strftime_now", |state: &State<'_, '_>, format: &str| -> Result<String, Fault> {
        let today = state.lookup(TODAY).ok_or_else(|| refuse(NO_DATE))?;
        let wrong = || refuse(format!("the setting {TODAY:?} is {today:?}; expected \"2026-01-31\""));
        today.as_str().and_then(Date::parse).ok_or_else(wrong)?.format(format).map_err(refuse)
    });
    environment.remove_global("debug");
    Ok(environment)
}

/// transformers' `tojson`: Python's `json.dumps` without escapes for HTML.
fn to_json(value: &Value, rest: Rest<Value>, options: Kwargs) -> Result<String, Fault> {
    if !rest.0.is_empty() {
        return Err(refuse("tojson takes its options by name"));
    }
    let is_set =
        |name: &str| -> Result<bool, Fault> { Ok(options.get::<Option<Value>>(name)?.is_some_and(|it| it.is_true())) };
    let (ensure_ascii, sort_keys) = (is_set("ensure_ascii")?, is_set("sort_keys")?);
    let indent = match options.get::<Option<Value>>("indent")?.filter(|indent| !indent.is_none()) {
        None => None,
        Some(indent) => Some(match (indent.as_str(), indent.as_i64()) {
            (Some(text), _) => text.to_owned(),
            (None, Some(n)) => " ".repeat(usize::try_from(n.clamp(0, 64)).unwrap_or(0)),
            (None, None) => return Err(refuse("indent is a number or a text")),
        }),
    };
    let separators = match options.get::<Option<Value>>("separators")?.filter(|pair| !pair.is_none()) {
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        Some(pair) => {
            let pair: Vec<Value> = pair.try_iter()?.collect();
            match pair.as_slice() {
                [item, key] => (PythonText::of(item)?, PythonText::of(key)?),
                _ => return Err(refuse("separators are two texts")),
            }
        }
    };
    options.assert_all_used()?;
    dumps(value, ensure_ascii, sort_keys, indent.as_deref(), (&separators.0, &separators.1))
}

fn join(values: &Value, separator: Option<&str>, attribute: Option<Value>) -> Result<String, Fault> {
    if attribute.is_some() {
        return Err(refuse("join by attribute is not supported; use map first"));
    }
    let texts = values.try_iter()?.map(|value| PythonText::of(&value)).collect::<Result<Vec<_>, _>>()?;
    Ok(texts.join(separator.unwrap_or("")))
}

/// `{% generation %}` marks what an assistant said and writes nothing: a block with a scope of its own does the same.
fn without_generation_tags(source: &str) -> Cow<'_, str> {
    if !source.contains("generation") {
        return Cow::Borrowed(source);
    }
    let mut made = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(end) = rest[start..].find("%}").map(|end| start + end) else { break };
        made.push_str(&rest[..start]);
        let tag = &rest[start..end];
        let word = tag[2..].trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        match word {
            "generation" => made.push_str(&tag.replacen("generation", "with", 1)),
            "endgeneration" => made.push_str(&tag.replacen("endgeneration", "endwith", 1)),
            _ => made.push_str(tag),
        }
        rest = &rest[end..];
    }
    made.push_str(rest);
    Cow::Owned(made)
}
