//! Compares the encoder that a tokenizer.json gets with Hugging Face's, and times both on a file of texts.
//!
//! `cargo run --release --example compare -- tokenizer.json texts.json [--time-only]`; texts.json is a JSON array of strings.

#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "a tool that prints speeds")]

use std::path::Path;
use std::time::Instant;

use trajtok::{Encoder, HfEncoder, load_encoder};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, tokenizer, texts, ..] = &arguments[..] else {
        return Err("usage: compare tokenizer.json texts.json".into());
    };
    let texts: Vec<String> = serde_json::from_slice(&std::fs::read(texts)?)?;
    let n_bytes: usize = texts.iter().map(String::len).sum();
    let started = Instant::now();
    let encoder = load_encoder(Path::new(tokenizer))?;
    println!("{} {:?} loaded in {:.2} s", encoder.name(), encoder.note(), started.elapsed().as_secs_f64());
    for round in std::iter::once("cold")
        .chain(std::iter::repeat_n("warm", std::env::var("ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3)))
    {
        let mut ids = Vec::with_capacity(n_bytes);
        let started = Instant::now();
        for text in &texts {
            encoder.encode_ids(text, &mut ids)?;
        }
        let seconds = started.elapsed().as_secs_f64();
        println!("{round} {:.1} MB/s, {} ids", n_bytes as f64 / 1e6 / seconds, ids.len());
    }
    if arguments.iter().any(|argument| argument == "--time-only") {
        return Ok(());
    }
    let hf = HfEncoder::from_file(Path::new(tokenizer))?;
    let (mut ours, mut theirs, mut n_differing) = (Vec::new(), Vec::new(), 0);
    for text in &texts {
        ours.clear();
        theirs.clear();
        let results = (encoder.encode_ids(text, &mut ours).is_ok(), hf.encode_ids(text, &mut theirs).is_ok());
        if ours != theirs || results.0 != results.1 {
            n_differing += 1;
            if n_differing < 4 {
                println!("differs: {text:?}");
            }
        }
    }
    println!("{n_differing} of {} texts differ", texts.len());
    Ok(())
}
