//! Binds chat templates.

use pyo3::prelude::*;

use crate::{JinjaInput, JinjaTemplate};

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
        let input = JinjaInput { messages, tools, add_generation_prompt, settings };
        Ok(py.detach(|| self.0.render(&input))?)
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyJinjaTemplate>()
}
