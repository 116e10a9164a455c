//! Packing: rows into bins of one size, by length alone.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::iter::repeat_n;

use crate::error::Error;

/// Below this capacity a table over all lengths costs nothing, however few rows there are.
const SMALL_CAPACITY: usize = 1 << 16;

/// Rows in bins, flat: bin `b` holds `rows[offsets[b]..offsets[b + 1]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packing {
    /// Where each bin begins in `rows`, and behind them the number of rows: `[n_bins + 1]`.
    pub offsets: Vec<i64>,
    /// Row indices, `[n_rows]`; bins by age, rows in the order of their placing.
    pub rows: Vec<i64>,
}

/// Packs rows by best-fit decreasing: the longest row first, each into the fullest bin that still holds it.
///
/// The same bins for the same lengths: equal lengths go by row index, equally full bins by age. Takes O(n log n), and next
/// to nothing per row where the capacity is not far above the number of rows.
///
/// `lengths` and `capacity` count tokens. Returns row indices per bin, bins by age, rows in the order of their placing.
///
/// # Errors
/// [`Error::PackCapacity`]; [`Error::PackRows`]; [`Error::PackLength`] names the first row that is empty or fits no bin.
pub fn pack(lengths: &[i64], capacity: i64) -> Result<Vec<Vec<usize>>, Error> {
    let Packing { offsets, rows } = pack_flat(lengths, capacity)?;
    let rows_of = |bin: &[i64]| rows[to_index(bin[0])..to_index(bin[1])].iter().map(|&row| to_index(row)).collect();
    Ok(offsets.windows(2).map(rows_of).collect())
}

/// [`pack`], without an allocation per bin.
///
/// # Errors
/// As for [`pack`].
pub fn pack_flat(lengths: &[i64], capacity: i64) -> Result<Packing, Error> {
    check(lengths, capacity)?;
    let room = to_index(capacity);
    if room <= lengths.len().max(SMALL_CAPACITY) {
        let (order, counts) = by_counting(lengths, room);
        let falling = (1..=room).rev().flat_map(|length| repeat_n(to_i64(length), counts[length] as usize));
        return Ok(gather(&order, &best_fit(falling, capacity, &mut RoomTable::new(room))));
    }
    let order = by_sorting(lengths);
    let falling = order.iter().map(|&row| lengths[row as usize]);
    Ok(gather(&order, &best_fit(falling, capacity, &mut RoomTree::default())))
}

fn check(lengths: &[i64], capacity: i64) -> Result<(), Error> {
    if capacity < 1 {
        return Err(Error::PackCapacity(capacity));
    }
    if lengths.len() >= u32::MAX as usize {
        return Err(Error::PackRows(lengths.len()));
    }
    match lengths.iter().position(|length| !(1..=capacity).contains(length)) {
        Some(index) => Err(Error::PackLength { index, length: lengths[index], capacity }),
        None => Ok(()),
    }
}

/// Rows by falling length, ties by index, in O(n + capacity); and how many rows have each length.
fn by_counting(lengths: &[i64], capacity: usize) -> (Vec<u32>, Vec<u32>) {
    let mut counts = vec![0_u32; capacity + 1];
    for &length in lengths {
        counts[to_index(length)] += 1;
    }
    let mut next = counts.clone();
    let mut start = 0;
    for slot in next.iter_mut().rev() {
        (*slot, start) = (start, start + *slot);
    }
    let mut order = vec![0_u32; lengths.len()];
    for (row, &length) in (0..).zip(lengths) {
        let slot = &mut next[to_index(length)];
        order[*slot as usize] = row;
        *slot += 1;
    }
    (order, counts)
}

/// The same order where a table over all lengths would be larger than the rows.
fn by_sorting(lengths: &[i64]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..).zip(lengths).map(|(row, _)| row).collect();
    order.sort_by_key(|&row| Reverse(lengths[row as usize])); // stable: ties stay in index order
    order
}

/// The bin of each row, given the lengths in the order of placing.
fn best_fit(falling: impl Iterator<Item = i64>, capacity: i64, rooms: &mut impl Rooms) -> Vec<u32> {
    let mut n_bins = 0;
    let place = |length| {
        let (left, bin) = rooms.take_fullest(length).unwrap_or_else(|| {
            n_bins += 1;
            (capacity, n_bins - 1)
        });
        rooms.put(left - length, bin);
        bin
    };
    falling.map(place).collect()
}

/// Lists the rows of each bin.
fn gather(order: &[u32], bins: &[u32]) -> Packing {
    let n_bins = bins.iter().max().map_or(0, |&last| last as usize + 1);
    let mut offsets = vec![0_i64; n_bins + 1];
    for &bin in bins {
        offsets[bin as usize + 1] += 1;
    }
    let mut end = 0;
    for offset in &mut offsets {
        end += *offset;
        *offset = end;
    }
    let mut rows = vec![0_i64; order.len()];
    let mut next = offsets.clone();
    for (&row, &bin) in order.iter().zip(bins) {
        let slot = &mut next[bin as usize];
        rows[to_index(*slot)] = row.into();
        *slot += 1;
    }
    Packing { offsets, rows }
}

/// Open bins by the room that is left in them.
trait Rooms {
    /// Takes out the bin with the least room that is enough; the oldest of those.
    fn take_fullest(&mut self, length: i64) -> Option<(i64, u32)>;

    /// Puts a bin in. One without room may be forgotten.
    fn put(&mut self, room: i64, bin: u32);
}

/// For any capacity: as large as the bins are many.
#[derive(Default)]
struct RoomTree(BTreeSet<(i64, u32)>);

impl Rooms for RoomTree {
    fn take_fullest(&mut self, length: i64) -> Option<(i64, u32)> {
        let found = self.0.range((length, 0)..).next().copied()?;
        self.0.remove(&found);
        Some(found)
    }

    fn put(&mut self, room: i64, bin: u32) {
        if room > 0 {
            self.0.insert((room, bin));
        }
    }
}

/// For capacities not far above the number of rows: a heap of bins per room, and which heaps hold any.
struct RoomTable {
    bins: Vec<BinaryHeap<Reverse<u32>>>,
    is_open: BitTree,
}

impl RoomTable {
    fn new(capacity: usize) -> Self {
        Self { bins: vec![BinaryHeap::new(); capacity], is_open: BitTree::new(capacity) }
    }
}

impl Rooms for RoomTable {
    fn take_fullest(&mut self, length: i64) -> Option<(i64, u32)> {
        let room = self.is_open.first_from(to_index(length))?;
        let Reverse(bin) = self.bins[room].pop()?;
        if self.bins[room].is_empty() {
            self.is_open.clear(room);
        }
        Some((to_i64(room), bin))
    }

    fn put(&mut self, room: i64, bin: u32) {
        if room > 0 {
            self.bins[to_index(room)].push(Reverse(bin));
            self.is_open.set(to_index(room));
        }
    }
}

/// A set of small numbers that finds the next one in a few steps: a bit per number, and a bit per word of the level below.
struct BitTree(Vec<Vec<u64>>);

impl BitTree {
    fn new(n: usize) -> Self {
        let mut levels = vec![vec![0; n.div_ceil(64).max(1)]];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            let above = vec![0; below.len().div_ceil(64)];
            levels.push(above);
        }
        Self(levels)
    }

    fn set(&mut self, mut at: usize) {
        for level in &mut self.0 {
            level[at / 64] |= 1 << (at % 64);
            at /= 64;
        }
    }

    fn clear(&mut self, mut at: usize) {
        for level in &mut self.0 {
            level[at / 64] &= !(1 << (at % 64));
            if level[at / 64] != 0 {
                return;
            }
            at /= 64;
        }
    }

    /// The least number in the set that is not below `at`.
    fn first_from(&self, mut at: usize) -> Option<usize> {
        for (height, level) in self.0.iter().enumerate() {
            let word = level.get(at / 64)? & (u64::MAX << (at % 64));
            if word != 0 {
                let found = at / 64 * 64 + word.trailing_zeros() as usize;
                return Some(self.descend(found, height));
            }
            at = at / 64 + 1;
        }
        None
    }

    /// The least number below the set bit `at` of level `height`.
    fn descend(&self, at: usize, height: usize) -> usize {
        self.0[..height].iter().rev().fold(at, |at, level| at * 64 + level[at].trailing_zeros() as usize)
    }
}

/// A number of tokens, which `check` found to be positive and at most the capacity.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and an index where it is used")]
fn to_index(n: i64) -> usize {
    n as usize
}

#[allow(clippy::cast_possible_wrap, reason = "no slice is longer than isize::MAX")]
fn to_i64(n: usize) -> i64 {
    n as i64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_row_goes_to_the_fullest_bin_that_holds_it() {
        assert_eq!(pack(&[5, 7, 3, 2, 4, 1], 10).unwrap(), [vec![1, 2], vec![0, 4, 5], vec![3]]);
    }

    #[test]
    fn ties_go_by_row_index() {
        assert_eq!(pack(&[4, 4, 4, 4], 8).unwrap(), [vec![0, 1], vec![2, 3]]);
    }

    #[test]
    fn no_rows_make_no_bins() {
        assert!(pack(&[], 1).unwrap().is_empty());
        assert_eq!(pack_flat(&[], 1).unwrap(), Packing { offsets: vec![0], rows: vec![] });
    }

    #[test]
    fn flat_bins_are_the_nested_ones() {
        let packing = pack_flat(&[5, 7, 3, 2, 4, 1], 10).unwrap();
        assert_eq!(packing, Packing { offsets: vec![0, 2, 5, 6], rows: vec![1, 2, 0, 4, 5, 3] });
    }

    #[test]
    fn a_row_that_no_bin_holds_is_named() {
        for (lengths, index, length) in [([3, 9], 1, 9), ([0, 3], 0, 0), ([3, -1], 1, -1)] {
            let message = pack(&lengths, 8).unwrap_err().to_string();
            assert!(message.starts_with(&format!("lengths[{index}] is {length}; expected 1 to 8")), "{message}");
        }
        assert!(matches!(pack(&[1], 0), Err(Error::PackCapacity(0))));
    }

    #[test]
    fn a_capacity_far_above_the_rows_needs_no_table() {
        let capacity = i64::MAX;
        assert_eq!(pack(&[capacity - 1, 1, 2, capacity], capacity).unwrap(), [vec![3], vec![0, 1], vec![2]]);
    }

    /// Best fit as its definition says it.
    fn slow_best_fit(lengths: &[i64], capacity: i64) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by_key(|&row| (Reverse(lengths[row]), row));
        let mut expected: Vec<(i64, Vec<usize>)> = Vec::new();
        for row in order {
            let fits = (0..expected.len()).filter(|&bin| expected[bin].0 >= lengths[row]);
            let bin = fits.min_by_key(|&bin| (expected[bin].0, bin)).unwrap_or_else(|| {
                expected.push((capacity, Vec::new()));
                expected.len() - 1
            });
            expected[bin].0 -= lengths[row];
            expected[bin].1.push(row);
        }
        expected.into_iter().map(|(_, rows)| rows).collect()
    }

    proptest! {
        #[test]
        fn every_row_is_in_one_bin_and_no_bin_is_over_full(
            (capacity, lengths) in (1_i64..200).prop_flat_map(|c| (Just(c), prop::collection::vec(1..=c, 0..200))),
        ) {
            let bins = pack(&lengths, capacity).unwrap();
            for bin in &bins {
                prop_assert!(!bin.is_empty());
                prop_assert!(bin.iter().map(|&row| lengths[row]).sum::<i64>() <= capacity);
            }
            let mut rows: Vec<usize> = bins.concat();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..lengths.len()).collect::<Vec<_>>());
        }

        #[test]
        fn bins_are_those_of_a_slow_best_fit(lengths in prop::collection::vec(1_i64..=20, 0..60)) {
            prop_assert_eq!(pack(&lengths, 20).unwrap(), slow_best_fit(&lengths, 20));
        }

        #[test]
        fn the_tree_and_the_table_agree_with_the_slow_best_fit(lengths in prop::collection::vec(1_i64..=9000, 0..80)) {
            let order = by_sorting(&lengths);
            prop_assert_eq!(&order, &by_counting(&lengths, 9000).0);
            let falling = || order.iter().map(|&row| lengths[row as usize]);
            let table = best_fit(falling(), 9000, &mut RoomTable::new(9000));
            prop_assert_eq!(table, best_fit(falling(), 9000, &mut RoomTree::default()));
            prop_assert_eq!(pack(&lengths, 9000).unwrap(), slow_best_fit(&lengths, 9000));
        }

        #[test]
        fn flat_and_nested_bins_are_the_same(lengths in prop::collection::vec(1_i64..=50, 0..80)) {
            let Packing { offsets, rows } = pack_flat(&lengths, 50).unwrap();
            let nested: Vec<Vec<usize>> = offsets
                .windows(2)
                .map(|bin| rows[to_index(bin[0])..to_index(bin[1])].iter().map(|&row| to_index(row)).collect())
                .collect();
            prop_assert_eq!(nested, pack(&lengths, 50).unwrap());
        }
    }
}
