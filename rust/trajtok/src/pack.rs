//! Packing: rows into bins of one size, by length alone.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::error::Error;

/// Packs rows by best-fit decreasing: the longest row first, each into the fullest bin that still holds it.
///
/// O(n log n), and the same bins for the same lengths: equal lengths go by row index, equally full bins by age.
///
/// `lengths` and `capacity` count tokens. Returns row indices per bin, bins by age, rows in the order of their placing.
///
/// # Errors
/// [`Error::PackCapacity`]; [`Error::PackLength`] names the first row that is empty or fits no bin.
pub fn pack(lengths: &[i64], capacity: i64) -> Result<Vec<Vec<usize>>, Error> {
    if capacity < 1 {
        return Err(Error::PackCapacity(capacity));
    }
    if let Some(index) = lengths.iter().position(|length| !(1..=capacity).contains(length)) {
        return Err(Error::PackLength { index, length: lengths[index], capacity });
    }
    let mut longest_first: Vec<usize> = (0..lengths.len()).collect();
    longest_first.sort_by_key(|&row| Reverse(lengths[row])); // stable: ties stay in index order
    let mut bins: Vec<Vec<usize>> = Vec::new();
    let mut room: BTreeSet<(i64, usize)> = BTreeSet::new();
    for row in longest_first {
        let (left, bin) = take_fullest(&mut room, lengths[row]).unwrap_or_else(|| {
            bins.push(Vec::new());
            (capacity, bins.len() - 1)
        });
        bins[bin].push(row);
        room.insert((left - lengths[row], bin));
    }
    Ok(bins)
}

/// Takes out the bin with the least room that is enough; the oldest of those.
fn take_fullest(room: &mut BTreeSet<(i64, usize)>, length: i64) -> Option<(i64, usize)> {
    let found = room.range((length, 0)..).next().copied()?;
    room.remove(&found);
    Some(found)
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
    }

    #[test]
    fn a_row_that_no_bin_holds_is_named() {
        for (lengths, index, length) in [([3, 9], 1, 9), ([0, 3], 0, 0), ([3, -1], 1, -1)] {
            let message = pack(&lengths, 8).unwrap_err().to_string();
            assert!(message.starts_with(&format!("lengths[{index}] is {length}; expected 1 to 8")), "{message}");
        }
        assert!(matches!(pack(&[1], 0), Err(Error::PackCapacity(0))));
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
            let mut order: Vec<usize> = (0..lengths.len()).collect();
            order.sort_by_key(|&row| (Reverse(lengths[row]), row));
            let mut expected: Vec<(i64, Vec<usize>)> = Vec::new();
            for row in order {
                let fits = (0..expected.len()).filter(|&bin| expected[bin].0 >= lengths[row]);
                let bin = fits.min_by_key(|&bin| (expected[bin].0, bin)).unwrap_or_else(|| {
                    expected.push((20, Vec::new()));
                    expected.len() - 1
                });
                expected[bin].0 -= lengths[row];
                expected[bin].1.push(row);
            }
            let expected: Vec<Vec<usize>> = expected.into_iter().map(|(_, rows)| rows).collect();
            prop_assert_eq!(pack(&lengths, 20).unwrap(), expected);
        }
    }
}
