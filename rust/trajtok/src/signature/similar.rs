//! Pairs of rows whose texts are alike, of rows that arrive one after another.
//!
//! **Only the past counts.** What is said of a row depends on it and on the rows before it, so that rows which arrive later
//! change nothing that was said: a table of pairs grows at its end.
//!
//! **Bounded.** A row is compared with no more than `2 * n_group + 2 * n_bucket * bands` others, however many share its group
//! or a band hash with it: the first ones, which are the same for all later rows, and the last ones, which are those of its
//! own time. It is not compared with the rows in between. Beside the pairs, memory grows with the input alone.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float32Array, RecordBatch, UInt32Array};

use crate::error::Error;

/// Which rows are compared, and which pairs of them kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairSettings {
    /// The most hashes a sketch holds. A sketch of so many is taken for the least ones of a larger set.
    pub sketch_size: usize,
    /// The least Jaccard similarity of a pair that is kept, 0 to 1.
    pub min_similarity: f64,
    /// How many of the first and how many of the last rows before it, of its group, a row is compared with.
    pub n_group: usize,
    /// As `n_group`, of each band hash.
    pub n_bucket: usize,
}

impl Default for PairSettings {
    fn default() -> Self {
        Self { sketch_size: 512, min_similarity: 0.3, n_group: 32, n_bucket: 8 }
    }
}

impl PairSettings {
    fn check(&self) -> Result<(), Error> {
        if self.sketch_size == 0 {
            return Err(Error::SignatureSetting { name: "sketch_size", value: 0 });
        }
        if !(0.0..=1.0).contains(&self.min_similarity) {
            return Err(Error::MinSimilarity(self.min_similarity));
        }
        Ok(())
    }
}

/// The pairs of rows that are alike, by the later row and then by the earlier.
///
/// `sketches` holds the distinct n-gram hashes of each text, ascending, the `sketch_size` least of them at most; `bands` its
/// band hashes; `groups` a number that related rows share. A row whose sketch is none or empty is in no pair and counts
/// nowhere. Row i is compared with earlier rows: the first and the last `n_group` of its group, and for each of its band
/// hashes the first and the last `n_bucket` that have it too.
///
/// Columns: `later` and `earlier`, uint32, places of rows; `similarity`, float32, the Jaccard similarity of the two sets.
/// It is exact where both sketches hold fewer than `sketch_size` hashes. Else it is estimated, with a standard deviation
/// of at most sqrt(J·(1 - J)/`sketch_size`): of the `sketch_size` least hashes of both, the share that stands in both.
///
/// # Errors
/// [`Error::SignatureSetting`], [`Error::MinSimilarity`]; [`Error::PairColumns`] where the lists differ in length;
/// [`Error::SketchLength`], [`Error::SketchOrder`]; [`Error::BatchTooLarge`] for 2^32 rows or more.
pub fn similar_pairs(
    sketches: &[Option<&[u64]>],
    bands: &[Option<&[u64]>],
    groups: &[u32],
    settings: PairSettings,
) -> Result<RecordBatch, Error> {
    settings.check()?;
    let (n_sketches, n_bands, n_groups) = (sketches.len(), bands.len(), groups.len());
    if n_bands != n_sketches || n_groups != n_sketches {
        return Err(Error::PairColumns { n_sketches, n_bands, n_groups });
    }
    let n_rows = u32::try_from(n_sketches).map_err(|_| Error::BatchTooLarge { n: n_sketches, what: "rows" })?;
    let sketches = (0..).zip(sketches).map(|(row, hashes)| Sketch::new(row, *hashes, settings.sketch_size));
    let sketches = sketches.collect::<Result<Vec<_>, _>>()?;

    let with_words = || (0..n_rows).zip(&sketches).filter(|(_, sketch)| !sketch.hashes.is_empty()).map(|(row, _)| row);
    let of_group = with_words().map(|row| (u64::from(groups[row as usize]), row)).collect();
    let of_band = with_words().flat_map(|row| bands[row as usize].unwrap_or(&[]).iter().map(move |&band| (band, row)));
    let mut by_group = Buckets::new(of_group, settings.n_group);
    let mut by_band = Buckets::new(of_band.collect(), settings.n_bucket);

    let (mut later, mut earlier, mut similarities, mut candidates) = (vec![], vec![], vec![], vec![]);
    for row in 0..n_rows {
        candidates.clear();
        by_group.add_candidates(row, &mut candidates);
        by_band.add_candidates(row, &mut candidates);
        candidates.sort_unstable();
        candidates.dedup();
        let sketch = &sketches[row as usize];
        for &candidate in &candidates {
            if let Some(similarity) = sketch.similarity(&sketches[candidate as usize], settings) {
                later.push(row);
                earlier.push(candidate);
                similarities.push(similarity);
            }
        }
    }
    let later: ArrayRef = Arc::new(UInt32Array::from(later));
    let earlier: ArrayRef = Arc::new(UInt32Array::from(earlier));
    let similarities: ArrayRef = Arc::new(Float32Array::from(similarities));
    let columns = [("later", later, false), ("earlier", earlier, false), ("similarity", similarities, false)];
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

/// Rows by what they share, read row after row.
struct Buckets {
    /// A bucket's hash and a row in it: bucket after bucket, rows ascending.
    members: Vec<(u64, u32)>,
    /// Per row and bucket, by row: the row, where the bucket begins in `members` and where the row stands there. A bucket's
    /// first row has none: nobody is before it.
    places: Vec<(u32, usize, usize)>,
    /// The first of `places` that was not read.
    next: usize,
    /// How many of a bucket's first and last rows are candidates.
    reach: usize,
}

impl Buckets {
    fn new(mut members: Vec<(u64, u32)>, reach: usize) -> Self {
        members.sort_unstable();
        members.dedup();
        let (mut places, mut start) = (Vec::new(), 0);
        for bucket in members.chunk_by(|a, b| a.0 == b.0) {
            places.extend((start..).zip(bucket).skip(1).map(|(at, &(_, row))| (row, start, at)));
            start += bucket.len();
        }
        places.sort_unstable();
        Self { members, places, next: 0, reach }
    }

    /// Adds the rows that `row` is compared with; to be called with every row, in order.
    fn add_candidates(&mut self, row: u32, candidates: &mut Vec<u32>) {
        while let Some(&(_, start, at)) = self.places.get(self.next).filter(|place| place.0 == row) {
            let before = &self.members[start..at];
            let (first, rest) = before.split_at(before.len().min(self.reach));
            let last = &rest[rest.len().saturating_sub(self.reach)..];
            candidates.extend(first.iter().chain(last).map(|&(_, earlier)| earlier));
            self.next += 1;
        }
    }
}

/// A row's hashes, and a set of some of their bits.
struct Sketch<'a> {
    hashes: &'a [u64],
    /// Bit `hash % 512` of each hash: most pairs that are not alike are told by it, without looking at the hashes.
    bits: [u64; 8],
}

impl<'a> Sketch<'a> {
    fn new(row: usize, hashes: Option<&'a [u64]>, sketch_size: usize) -> Result<Self, Error> {
        let hashes = hashes.unwrap_or(&[]);
        if hashes.len() > sketch_size {
            return Err(Error::SketchLength { row, n: hashes.len(), sketch_size });
        }
        if let Some(at) = hashes.windows(2).position(|pair| pair[0] >= pair[1]) {
            return Err(Error::SketchOrder { row, at: at + 1 });
        }
        let mut bits = [0; 8];
        for hash in hashes {
            bits[(hash >> 6 & 7) as usize] |= 1 << (hash & 63);
        }
        Ok(Self { hashes, bits })
    }

    /// The similarity, where it is high enough.
    fn similarity(&self, other: &Self, settings: PairSettings) -> Option<f32> {
        let PairSettings { sketch_size, min_similarity, .. } = settings;
        let is_exact = self.hashes.len().max(other.hashes.len()) < sketch_size;
        let n_counted = if is_exact { usize::MAX } else { sketch_size };
        let most = self.most_shared(other);
        let at_most = share(most, n_counted.min(self.hashes.len() + other.hashes.len() - most));
        if at_most < min_similarity {
            return None;
        }
        let (n_shared, n_counted) = count_shared(self.hashes, other.hashes, n_counted);
        let similarity = share(n_shared, n_counted);
        #[allow(clippy::cast_possible_truncation, reason = "a share needs no more digits")]
        (similarity >= min_similarity).then_some(similarity as f32)
    }

    /// A bound of how many hashes both have: a bit that only one has stands for at least one hash that the other lacks.
    fn most_shared(&self, other: &Self) -> usize {
        self.most_shared_of_own(other).min(other.most_shared_of_own(self))
    }

    fn most_shared_of_own(&self, other: &Self) -> usize {
        let n_lacking: u32 =
            self.bits.iter().zip(&other.bits).map(|(own, of_other)| (own & !of_other).count_ones()).sum();
        self.hashes.len() - n_lacking as usize
    }
}

/// How many of the first `limit` distinct hashes of two ascending lists stand in both, and how many hashes these are. No
/// branch depends on the hashes: which is less cannot be foreseen, and a wrong guess costs more than to add.
fn count_shared(a: &[u64], b: &[u64], limit: usize) -> (usize, usize) {
    let (mut in_a, mut in_b, mut n_shared, mut n) = (0, 0, 0, 0);
    while in_a < a.len() && in_b < b.len() && n < limit {
        let (from_a, from_b) = (a[in_a], b[in_b]);
        in_a += usize::from(from_a <= from_b);
        in_b += usize::from(from_b <= from_a);
        n_shared += usize::from(from_a == from_b);
        n += 1;
    }
    (n_shared, limit.min(n + (a.len() - in_a) + (b.len() - in_b)))
}

/// `n` is not 0: sketches without hashes are never compared.
#[allow(clippy::cast_precision_loss, reason = "nobody has 2^53 hashes")]
fn share(n_shared: usize, n: usize) -> f64 {
    n_shared as f64 / n as f64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use arrow_array::cast::AsArray;
    use arrow_array::types::{Float32Type, UInt32Type};
    use proptest::prelude::*;

    use super::*;

    /// Hashes, bands and group.
    type Row = (Option<Vec<u64>>, Option<Vec<u64>>, u32);

    const SMALL: PairSettings = PairSettings { sketch_size: 4, min_similarity: 0.0, n_group: 2, n_bucket: 1 };

    fn run(rows: &[Row], settings: PairSettings) -> Result<Vec<(u32, u32, f32)>, Error> {
        let sketches: Vec<_> = rows.iter().map(|row| row.0.as_deref()).collect();
        let bands: Vec<_> = rows.iter().map(|row| row.1.as_deref()).collect();
        let groups: Vec<_> = rows.iter().map(|row| row.2).collect();
        let batch = similar_pairs(&sketches, &bands, &groups, settings)?;
        let rows = |column: usize| batch.column(column).as_primitive::<UInt32Type>().values();
        let similarities = batch.column(2).as_primitive::<Float32Type>().values();
        Ok(rows(0).iter().zip(rows(1)).zip(similarities).map(|((&a, &b), &similarity)| (a, b, similarity)).collect())
    }

    fn rows_without_similarity(rows: &[Row], settings: PairSettings) -> Vec<(u32, u32)> {
        run(rows, settings).unwrap().into_iter().map(|(later, earlier, _)| (later, earlier)).collect()
    }

    fn row(hashes: &[u64], bands: &[u64], group: u32) -> Row {
        (Some(hashes.to_vec()), Some(bands.to_vec()), group)
    }

    #[test]
    fn similarity_is_exact_below_the_size_of_a_sketch() {
        let rows = [row(&[1, 2, 3], &[], 0), row(&[2, 3, 4], &[], 0)];
        assert_eq!(run(&rows, SMALL).unwrap(), [(1, 0, 0.5)]);
    }

    #[test]
    fn a_full_sketch_is_compared_by_the_least_hashes_of_both() {
        // of 1 2 3 4, the least of both, 2 and 3 stand in both; 9 does too, and is beyond
        let rows = [row(&[1, 2, 3, 9], &[], 0), row(&[2, 3, 4, 9], &[], 0)];
        assert_eq!(run(&rows, SMALL).unwrap(), [(1, 0, 0.5)]);
        let rows = [row(&[1, 2, 3, 9], &[], 0), row(&[9], &[], 0)];
        assert_eq!(run(&rows, SMALL).unwrap(), [(1, 0, 0.25)]);
    }

    #[test]
    fn a_row_meets_the_first_and_the_last_of_its_group() {
        let rows: Vec<Row> = (0..7).map(|_| row(&[1], &[], 5)).collect();
        let of_last: Vec<_> = rows_without_similarity(&rows, SMALL).into_iter().filter(|pair| pair.0 == 6).collect();
        assert_eq!(of_last, [(6, 0), (6, 1), (6, 4), (6, 5)]);
    }

    #[test]
    fn a_row_meets_the_first_and_the_last_of_each_bucket_once() {
        let rows: Vec<Row> = (0..4).map(|group| row(&[1], &[7, 8, 7], group)).collect();
        assert_eq!(rows_without_similarity(&rows, SMALL), [(1, 0), (2, 0), (2, 1), (3, 0), (3, 2)]);
    }

    #[test]
    fn rows_without_words_count_nowhere() {
        let rows = [row(&[1], &[7], 0), row(&[], &[7], 0), (None, Some(vec![7]), 0), (Some(vec![1]), None, 0)];
        assert_eq!(rows_without_similarity(&rows, PairSettings { n_group: 1, ..SMALL }), [(3, 0)]);
    }

    #[test]
    fn a_pair_of_the_least_similarity_is_kept() {
        let rows = [row(&(0..10).collect::<Vec<_>>(), &[], 0), row(&[0, 1, 2], &[], 0)];
        let settings = |min_similarity| PairSettings { min_similarity, ..PairSettings::default() };
        assert_eq!(rows_without_similarity(&rows, settings(0.3)), [(1, 0)]);
        assert!(rows_without_similarity(&rows, settings(0.300_001)).is_empty());
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let message = |settings| run(&[], settings).unwrap_err().to_string();
        assert_eq!(message(PairSettings { sketch_size: 0, ..SMALL }), "sketch_size is 0; expected at least 1");
        for value in [-0.1, 1.1, f64::NAN] {
            let message = message(PairSettings { min_similarity: value, ..SMALL });
            assert_eq!(message, format!("min_similarity is {value}; expected 0 to 1"));
        }
    }

    #[test]
    fn sketches_that_are_none_are_named() {
        let message = |hashes: &[u64]| run(&[row(&[1], &[], 0), row(hashes, &[], 0)], SMALL).unwrap_err().to_string();
        let found = message(&[1, 3, 3]);
        assert!(found.starts_with("sketches[1][2] is no greater than the hash before it"), "{found}");
        let found = message(&[1, 2, 3, 4, 5]);
        assert!(found.starts_with("sketches[1] holds 5 hashes; expected at most 4"), "{found}");
    }

    #[test]
    fn columns_of_different_lengths_are_refused() {
        let found = similar_pairs(&[None], &[None], &[], SMALL).unwrap_err().to_string();
        assert_eq!(found, "1 sketches, 1 bands and 0 groups; expected one of each per row");
    }

    #[test]
    fn the_largest_settings_overflow_nothing() {
        let all =
            PairSettings { sketch_size: usize::MAX, min_similarity: 0.0, n_group: usize::MAX, n_bucket: usize::MAX };
        let rows: Vec<Row> = (0..5).map(|hash| row(&[hash, u64::MAX], &[u64::MAX], u32::MAX)).collect();
        assert_eq!(run(&rows, all).unwrap().len(), 10);
    }

    /// The definition, without a thought for speed.
    fn naive(rows: &[Row], settings: PairSettings) -> Vec<(u32, u32, f32)> {
        let PairSettings { sketch_size, min_similarity, n_group, n_bucket } = settings;
        let has_words = |row: &Row| row.0.as_ref().is_some_and(|hashes| !hashes.is_empty());
        let mut pairs = Vec::new();
        for (later, row) in rows.iter().enumerate().filter(|(_, row)| has_words(row)) {
            let mut candidates = BTreeSet::<usize>::new();
            let mut take = |n: usize, is_shared: &dyn Fn(&Row) -> bool| {
                let before = (0..later).filter(|&at| has_words(&rows[at]) && is_shared(&rows[at]));
                let before: Vec<usize> = before.collect();
                candidates.extend(before.iter().take(n).chain(before.iter().rev().take(n)));
            };
            take(n_group, &|other| other.2 == row.2);
            for band in row.1.iter().flatten() {
                take(n_bucket, &|other| other.1.as_ref().is_some_and(|bands| bands.contains(band)));
            }
            for earlier in candidates {
                let [a, b] = [row, &rows[earlier]].map(|row| row.0.iter().flatten().copied().collect::<BTreeSet<_>>());
                let is_exact = a.len() < sketch_size && b.len() < sketch_size;
                let counted: Vec<u64> = a.union(&b).copied().take(if is_exact { 99 } else { sketch_size }).collect();
                let n_shared = counted.iter().filter(|hash| a.contains(hash) && b.contains(hash)).count();
                let similarity = share(n_shared, counted.len());
                if similarity >= min_similarity {
                    #[allow(clippy::cast_possible_truncation, reason = "as in the real one")]
                    pairs.push((u32::try_from(later).unwrap(), u32::try_from(earlier).unwrap(), similarity as f32));
                }
            }
        }
        pairs
    }

    fn any_row() -> impl Strategy<Value = Row> {
        // few hashes, some of which share a bit with others
        let hash = (0..12_u64, 0..2_u64).prop_map(|(low, high)| low + 512 * high);
        let hashes = prop::collection::btree_set(hash, 0..7).prop_map(|hashes| hashes.into_iter().collect());
        (prop::option::weighted(0.9, hashes), prop::option::of(prop::collection::vec(0..5_u64, 0..4)), 0..3_u32)
    }

    proptest! {
        #[test]
        fn pairs_are_those_of_the_definition(
            rows in prop::collection::vec(any_row(), 0..40),
            sketch_size in 6_usize..9,
            tenths in 0_u8..=10,
            n_group in 0_usize..4,
            n_bucket in 0_usize..3,
        ) {
            let settings = PairSettings { sketch_size, min_similarity: f64::from(tenths) / 10.0, n_group, n_bucket };
            prop_assert_eq!(run(&rows, settings).unwrap(), naive(&rows, settings));
        }

        #[test]
        fn later_rows_change_nothing(rows in prop::collection::vec(any_row(), 1..40), n in 0_usize..40) {
            let n = n.min(rows.len());
            let settings = PairSettings { sketch_size: 6, ..SMALL };
            let mut all = run(&rows, settings).unwrap();
            all.retain(|pair| (pair.0 as usize) < n);
            prop_assert_eq!(all, run(&rows[..n], settings).unwrap());
        }
    }
}
