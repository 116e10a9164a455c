//! One encoder, one tokenizer, one process: megabytes per second, and texts whose ids are not those of tokenizers 0.23.
//!
//!     encoders ENCODER TOKENIZER_JSON FOLDER [--check]
//!
//! FOLDER holds `real.jsonl`, `hostile.jsonl` and `adversarial.jsonl`, a conversation a line. Prints one JSON object. Loading
//! is outside of the clock. Cold is the first pass over `hostile` after fifty documents of `real`; warm the median of three
//! passes over `real`, which by then every cache knows.

use std::error::Error;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Instant;

use serde_json::{Value, json};

type Fail = Box<dyn Error + Send + Sync>;
type Encode = Box<dyn FnMut(&str, &mut Vec<u32>) -> Result<(), Fail>>;

const TOUCHED: usize = 50;
const WARM_PASSES: usize = 3;
const CHECKED: usize = 500;

fn main() -> Result<(), Fail> {
    let args: Vec<String> = std::env::args().collect();
    let [_, name, tokenizer, folder, flags @ ..] = args.as_slice() else {
        return Err("usage: encoders ENCODER TOKENIZER_JSON FOLDER [--check]".into());
    };
    let check = flags.iter().any(|flag| flag == "--check");
    let report = measure(name, Path::new(tokenizer), Path::new(folder), check)
        .unwrap_or_else(|problem| json!({ "error": problem.to_string().lines().next().unwrap_or_default() }));
    println!("{report}");
    Ok(())
}

fn measure(name: &str, tokenizer: &Path, folder: &Path, check: bool) -> Result<Value, Fail> {
    let [real, hostile, adversarial] =
        ["real", "hostile", "adversarial"].map(|corpus| read_texts(&folder.join(format!("{corpus}.jsonl"))));
    let (real, hostile, adversarial) = (real?, hostile?, adversarial?);
    let (used, mut encode) = load(name, tokenizer)?;
    let mut ids = vec![1; 16 << 20]; // written to, so that no page of it is made inside of the clock
    for text in &real[..TOUCHED] {
        encode(text, &mut ids)?;
    }
    let cold = pass(&mut encode, &hostile, &mut ids)?;
    let mut warm = (0..WARM_PASSES).map(|_| pass(&mut encode, &real, &mut ids)).collect::<Result<Vec<_>, _>>()?;
    warm.sort_by(f64::total_cmp);
    let mut report = json!({ "encoder": used, "cold": cold, "warm": warm[WARM_PASSES / 2] });
    if check {
        let reference = hf_0_23::Tokenizer::from_file(tokenizer)?;
        report["differing"] = json!({
            "real": differing(&mut encode, &reference, &real[..CHECKED])?,
            "hostile": differing(&mut encode, &reference, &hostile[..CHECKED])?,
            "adversarial": differing(&mut encode, &reference, &adversarial)?,
        });
    }
    Ok(report)
}

/// The contents of each line's messages as one text.
fn read_texts(path: &Path) -> Result<Vec<String>, Fail> {
    let lines = std::fs::read_to_string(path)?;
    let text = |line: &str| -> Result<String, Fail> {
        let conversation: Value = serde_json::from_str(line)?;
        let messages = conversation["messages"].as_array().ok_or("a line has no messages")?;
        Ok(messages.iter().filter_map(|message| message["content"].as_str()).collect::<Vec<_>>().join("\n"))
    };
    lines.lines().map(text).collect()
}

/// Seconds: of the wall's clock, or with BENCH_CLOCK=cpu those that this process' threads had a core to themselves.
fn clock() -> Result<f64, Fail> {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    if std::env::var("BENCH_CLOCK").is_ok_and(|clock| clock == "cpu") {
        let mut nanoseconds = 0;
        for task in std::fs::read_dir("/proc/self/task")? {
            let times = std::fs::read_to_string(task?.path().join("schedstat"))?;
            nanoseconds += times.split_whitespace().next().ok_or("an empty schedstat")?.parse::<u64>()?;
        }
        return Ok(nanoseconds as f64 / 1e9);
    }
    Ok(START.elapsed().as_secs_f64())
}

/// Megabytes of text per second.
fn pass(encode: &mut Encode, texts: &[String], ids: &mut Vec<u32>) -> Result<f64, Fail> {
    ids.clear();
    let start = clock()?;
    for text in texts {
        encode(text, ids)?;
    }
    let seconds = clock()? - start;
    let n_bytes: usize = texts.iter().map(String::len).sum();
    Ok(n_bytes as f64 / 1e6 / seconds)
}

/// How many texts have other ids than tokenizers 0.23 gives: of all adversarial texts, and of the first of the others, since
/// the reference takes seconds for all of them. The corpora hold no added token's text.
fn differing(encode: &mut Encode, reference: &hf_0_23::Tokenizer, texts: &[String]) -> Result<usize, Fail> {
    let mut n_differing = 0;
    let mut ids = Vec::new();
    for text in texts {
        ids.clear();
        let is_equal = encode(text, &mut ids).is_ok() && ids == reference.encode_fast(text.as_str(), false)?.get_ids();
        n_differing += usize::from(!is_equal);
    }
    Ok(n_differing)
}

/// What the encoder calls itself, and the encoder.
fn load(name: &str, path: &Path) -> Result<(String, Encode), Fail> {
    let encode: Encode = match name {
        "trajtok" => return load_ours(path),
        "tokenizers-0.23" => {
            let tokenizer = hf_0_23::Tokenizer::from_file(path)?;
            Box::new(move |text, ids| {
                ids.extend_from_slice(tokenizer.encode_fast(text, false)?.get_ids());
                Ok(())
            })
        }
        "tokenizers-1.0rc" => load_hf_1_0(path)?,
        "fastokens" => {
            let tokenizer = fastokens::Tokenizer::from_file(path)?;
            Box::new(move |text, ids| {
                ids.extend(tokenizer.encode(text)?);
                Ok(())
            })
        }
        "splintr" => {
            let tokenizer = splintr::from_json_path(path)?;
            Box::new(move |text, ids| {
                ids.extend(tokenizer.encode_raw(text));
                Ok(())
            })
        }
        "kitoken" => {
            let tokenizer = kitoken::Kitoken::from_file(path)?;
            Box::new(move |text, ids| {
                ids.extend(tokenizer.encode(text, false)?);
                Ok(())
            })
        }
        _ => return Err(format!("no encoder {name:?}").into()),
    };
    Ok((name.to_owned(), encode))
}

fn load_ours(path: &Path) -> Result<(String, Encode), Fail> {
    let encoder = trajtok::load_encoder(path)?;
    let used = encoder.name().to_owned();
    let mut signed = Vec::new();
    let encode: Encode = Box::new(move |text, ids| {
        signed.clear();
        encoder.encode_ids(text, &mut signed)?;
        ids.extend(signed.iter().map(|id: &i32| id.cast_unsigned()));
        Ok(())
    });
    Ok((used, encode))
}

fn load_hf_1_0(path: &Path) -> Result<Encode, Fail> {
    use hf_1_0::pipeline::{EncodeOptions, PipelineToken};
    let canonical = hf_1_0::canonicalize_file(path)?;
    let tokenizer = hf_1_0::from_json(&canonical)?;
    let mut options = EncodeOptions::default();
    options.add_special_tokens = false;
    let mut tokens: Vec<PipelineToken> = Vec::new();
    Ok(Box::new(move |text, ids| {
        tokens.clear();
        tokenizer.encode_into(text, &options, &mut tokens)?;
        ids.extend_from_slice(PipelineToken::cast_slice(&tokens));
        Ok(())
    }))
}
