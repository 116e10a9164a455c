//! Binds chat templates.

use pyo3::prelude::*;

use crate::py::TemplateError;
use crate::{JinjaInput, JinjaTemplate, read_json};

#[pyclass(name = "JinjaTemplate", module = "negtraj_dagster._trajtok", frozen)]
struct PyJinjaTemplate(JinjaTemplate);

#[pymethods]
impl PyJinjaTemplate {
    #[new]
    #[pyo3(signature = (source, *, origin = "the chat template"))]
    fn new(source: &str, origin: &str) -> PyResult<Self> {
        Ok(Self(JinjaTemplate::new(source, origin.to_owned())?))
    }

    #[pyo3(signature = (messages, *, tools = None, add_generation_prompt = false, settings = "{}"))]
    fn render(
        &self,
        py: Python<'_>,
        messages: &str,
        tools: Option<&str>,
        add_generation_prompt: bool,
        settings: &str,
    ) -> PyResult<String> {
        let n_bytes = messages.len() + tools.map_or(0, str::len) + settings.len();
        let read = |name: &str, text: &str| {
            read_json(text).map_err(|problem| TemplateError::new_err(format!("{name}: {problem}")))
        };
        let messages = read("messages", messages)?;
        let tools = tools.map(|tools| read("tools", tools)).transpose()?;
        let settings = read("settings", settings)?;
        let problem = |error: minijinja::Error| TemplateError::new_err(format!("settings: {error}"));
        let mut pairs = Vec::new();
        for key in settings.try_iter().map_err(problem)? {
            pairs.push((key.to_string(), settings.get_item(&key).map_err(problem)?));
        }
        let input = JinjaInput { messages, tools, add_generation_prompt, settings: pairs, n_bytes };
        Ok(py.detach(|| self.0.render(&input))?)
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyJinjaTemplate>()
}
