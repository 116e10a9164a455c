//! The encoder alone and whole rows, on text made by seed, for the tokenizers that `TRAJTOK_TOKENIZERS` names (paths, `:` between):
//! `TRAJTOK_TOKENIZERS=a/tokenizer.json RAYON_NUM_THREADS=1 cargo bench --bench encode`.
//!
//! Words repeat as they do in language, so that caches are warm: what `make bench-trajtok` calls cold is not measured here.

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use trajtok::{OverLength, Tokenizer, load_encoder};

const WORDS: &[&str] = &[
    "Thought",
    "Action",
    "search",
    "finish",
    "the",
    "of",
    "population",
    "river",
    "1998",
    "didn't",
    "naïve",
    "北京",
    "e.g.",
    "getattr(self)",
    "\n",
    "—",
];

/// Sentences of words drawn by a fixed linear congruence.
fn text(n_words: usize, seed: u64) -> String {
    let mut state = seed;
    let mut words = Vec::with_capacity(n_words);
    for _ in 0..n_words {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        words.push(WORDS[usize::try_from(state >> 33).unwrap_or(0) % WORDS.len()]);
    }
    words.join(" ")
}

fn conversation(seed: u64) -> String {
    let turns: Vec<String> = (0..8)
        .map(|turn| {
            let (role, weight) = if turn % 2 == 0 { ("user", 0.0) } else { ("assistant", 1.0) };
            let content = text(60, seed + turn).replace('\n', "\\n");
            format!(r#"{{"role":"{role}","content":"{content}","weight":{weight:?}}}"#)
        })
        .collect();
    format!(r#"{{"messages":[{}]}}"#, turns.join(","))
}

fn bench_encoders(criterion: &mut Criterion) {
    let paths = std::env::var("TRAJTOK_TOKENIZERS").unwrap_or_default();
    let texts: Vec<String> = (0..200).map(|seed| text(400, seed)).collect();
    let conversations: Vec<String> = (0..200).map(conversation).collect();
    let keys = vec![""; conversations.len()];
    for path in paths.split(':').filter(|path| !path.is_empty()) {
        let mut group = criterion.benchmark_group(path);
        group.sample_size(20).throughput(Throughput::Bytes(texts.iter().map(|text| text.len() as u64).sum()));
        match load_encoder(Path::new(path)) {
            Err(problem) => panic!("{problem}"),
            Ok(encoder) => {
                let mut ids = Vec::new();
                group.bench_function(format!("{}, ids", encoder.name()), |bencher| {
                    bencher.iter(|| {
                        ids.clear();
                        texts.iter().try_for_each(|text| encoder.encode_ids(black_box(text), &mut ids))
                    });
                });
                let Ok(tokenizer) = Tokenizer::new(encoder, "chatml", 1 << 20, OverLength::Drop) else { continue };
                group.throughput(Throughput::Bytes(conversations.iter().map(|row| row.len() as u64).sum()));
                group.bench_function("rows with masks (ChatML)", |bencher| {
                    bencher.iter(|| tokenizer.encode(&keys, black_box(&conversations)));
                });
            }
        }
        group.finish();
    }
}

criterion_group!(benches, bench_encoders);
criterion_main!(benches);
