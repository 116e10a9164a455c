//! Packing, signatures and reading, on text made by seed. `RAYON_NUM_THREADS=1 cargo bench --bench data` for one core.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use trajtok::{
    MinHashSettings, PairSettings, ReaderSettings, RecordReader, Shape, contaminated, minhash, ngrams, pack_flat,
    similar_pairs,
};

/// A small generator (Steele, Lea and Flood 2014), so that the input is the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut next = self.0;
        next = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        next = (next ^ (next >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        next ^ (next >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn small(&mut self, n: u32) -> u32 {
        u32::try_from(self.below(n.into())).unwrap_or(0)
    }

    /// Words of 2 to 9 letters.
    fn text(&mut self, n_words: u64) -> String {
        let words = (0..n_words).map(|_| {
            let n_letters = 2 + self.below(8);
            (0..n_letters).map(|_| char::from(b'a' + u8::try_from(self.below(26)).unwrap_or(0))).collect::<String>()
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

fn bench_pack(criterion: &mut Criterion) {
    let mut random = Random(1);
    // Twelve uniform numbers add up to nearly a normal one; its exponential has a median of 812.
    let mut length = || {
        let normal = (0..12).map(|_| f64::from(random.small(1 << 20))).sum::<f64>() / f64::from(1 << 20) - 6.0;
        let length = (812.0_f64.ln() + 0.72 * normal).exp();
        #[allow(clippy::cast_possible_truncation, reason = "clamped before")]
        let length = length.clamp(16.0, 4096.0) as i64;
        length
    };
    let lengths: Vec<i64> = (0..1_000_000).map(|_| length()).collect();
    let mut group = criterion.benchmark_group("pack");
    group.sample_size(20).throughput(Throughput::Elements(lengths.len() as u64));
    group.bench_function("1 000 000 rows, capacity 4096", |bencher| {
        bencher.iter(|| pack_flat(black_box(&lengths), 4096));
    });
    let few = &lengths[..10_000];
    group.throughput(Throughput::Elements(few.len() as u64));
    group.bench_function("10 000 rows, capacity 1 000 000", |bencher| {
        bencher.iter(|| pack_flat(black_box(few), 1_000_000));
    });
    group.finish();
}

fn bench_signature(criterion: &mut Criterion) {
    let mut random = Random(2);
    let texts: Vec<String> = (0..1000).map(|_| random.text(400)).collect();
    let references: Vec<String> = (0..500).map(|_| random.text(40)).collect();
    let rows = |texts: &'static [String]| texts.iter().map(|text| Some(text.as_str())).collect::<Vec<_>>();
    let (texts, references) = (rows(texts.leak()), rows(references.leak()));
    let n_bytes = texts.iter().flatten().map(|text| text.len() as u64).sum();
    let mut group = criterion.benchmark_group("signature");
    group.sample_size(20).throughput(Throughput::Bytes(n_bytes));
    group.bench_function("minhash, 128 of 5-grams", |bencher| {
        bencher.iter(|| minhash(black_box(&texts), MinHashSettings::default()));
    });
    group.bench_function("13-grams", |bencher| bencher.iter(|| ngrams(black_box(&texts), 13)));
    group.bench_function("contaminated by 500 texts", |bencher| {
        bencher.iter(|| contaminated(black_box(&texts), &references, 13, 13));
    });
    group.finish();
}

/// 100 hashes and 16 band hashes per row; no two rows are alike.
fn bench_pairs(criterion: &mut Criterion) {
    const N_ROWS: u32 = 100_000;
    let mut random = Random(4);
    let mut hashes = |n: u32| (0..n).map(|_| random.next()).collect::<Vec<_>>();
    let (mut sketches, bands) = (hashes(100 * N_ROWS), hashes(16 * N_ROWS));
    sketches.chunks_mut(100).for_each(<[u64]>::sort_unstable);
    let sketches: Vec<_> = sketches.chunks(100).map(Some).collect();
    let own: Vec<_> = bands.chunks(16).map(Some).collect();
    let (shared, settings) = (vec![own[0]; own.len()], PairSettings::default());
    let (groups, group): (Vec<u32>, Vec<u32>) = (0..N_ROWS).map(|row| (row / 8, 0)).unzip();
    let mut measured = criterion.benchmark_group("similar pairs");
    measured.sample_size(10).throughput(Throughput::Elements(N_ROWS.into()));
    measured.bench_function("100 000 rows, groups of 8", |bencher| {
        bencher.iter(|| similar_pairs(black_box(&sketches), &own, &groups, settings));
    });
    measured.bench_function("100 000 rows, one group, the same band hashes", |bencher| {
        bencher.iter(|| similar_pairs(black_box(&sketches), &shared, &group, settings));
    });
    measured.finish();
}

/// Conversations of six turns; every turn has an escape sequence, every tenth one a letter beyond ASCII.
fn records() -> Vec<String> {
    let mut random = Random(3);
    let mut turn = |n: u64| {
        let (role, loss) = if n % 2 == 1 { ("assistant", "true") } else { ("user", "false") };
        let letter = if random.below(10) == 0 { "é" } else { "e" };
        let text = random.text(60);
        format!(r#"{{"role": "{role}", "content": "Thought: {text}\nAction: search[{letter}]", "loss": {loss}}}"#)
    };
    let mut turns = || (0..6).map(&mut turn).collect::<Vec<_>>().join(", ");
    (0..5000).map(|n| format!(r#"{{"conversations": [{}], "info": {{"reward": true}}, "id": {n}}}"#, turns())).collect()
}

fn bench_reader(criterion: &mut Criterion) {
    let records = records();
    let (lines, array) = (records.join("\n"), format!("[{}]", records.join(",\n")));
    let read = |file: &str| {
        let mut reader = RecordReader::new(file.as_bytes(), ReaderSettings::default())?;
        let mut n_records = 0;
        while let Some(batch) = reader.next_batch()? {
            n_records += batch.records.len();
        }
        Ok::<usize, trajtok::Error>(n_records)
    };
    let mut group = criterion.benchmark_group("reader");
    group.sample_size(20).throughput(Throughput::Bytes(lines.len() as u64));
    group.bench_function("lines", |bencher| bencher.iter(|| read(black_box(&lines))));
    group.bench_function("array", |bencher| bencher.iter(|| read(black_box(&array))));
    group.bench_function("typed messages", |bencher| {
        let (shape, mut messages) = (Shape::default(), Vec::new());
        bencher.iter(|| {
            for record in &records {
                messages.clear();
                shape.read(black_box(record.as_bytes()), &mut messages).unwrap_or_default();
            }
        });
    });
    group.finish();
}

criterion_group!(benches, bench_pack, bench_signature, bench_pairs, bench_reader);
criterion_main!(benches);
