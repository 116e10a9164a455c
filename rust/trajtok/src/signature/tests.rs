use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, UInt32Type, UInt64Type};
use proptest::prelude::*;

use super::words::{for_each_ngram, hash_words, ngram_set};
use super::*;

fn words(text: &str) -> Vec<u64> {
    let mut words = Vec::new();
    hash_words(text, &mut words);
    words
}

fn set(text: &str, n_words: usize) -> Vec<u64> {
    ngram_set(text, n_words, &mut Vec::new())
}

/// Rows of (text, reference, `n_shared`, `n_ngrams`).
fn hits(texts: &[&str], references: &[&str], n_words: usize, min_words: usize) -> Vec<[i64; 4]> {
    let [texts, references] = [texts, references].map(|list| list.iter().copied().map(Some).collect::<Vec<_>>());
    let batch = contaminated(&texts, &references, n_words, min_words).unwrap();
    let at = |column: usize, row: usize| batch.column(column).as_primitive::<Int64Type>().value(row);
    (0..batch.num_rows()).map(|row| [0, 1, 2, 3].map(|column| at(column, row))).collect()
}

fn signature(text: &str, settings: MinHashSettings) -> Vec<u32> {
    let batch = minhash(&[Some(text)], settings).unwrap();
    batch.column(0).as_fixed_size_list().values().as_primitive::<UInt32Type>().values().to_vec()
}

#[test]
fn case_and_what_is_not_alphanumeric_do_not_matter() {
    assert_eq!(words("The  quick-brown fox!"), words("the\nQUICK brown, \u{201c}fox\u{201d}"));
    assert_eq!(words("ÀÉ Straße 東京"), words("àé|straße—東京"));
    assert_eq!(words("abcdefgh ijklmnopqrstu").len(), 2);
    assert!(words(" \t—…!").is_empty());
}

#[test]
fn words_are_not_confused_with_their_parts() {
    assert_ne!(words("abcdefgh i"), words("abcdefghi"));
    assert_ne!(words("ab cd"), words("cd ab"));
    assert_ne!(set("a b c", 3), set("a b c", 2));
    assert_ne!(set("a b", 2), set("b a", 2));
}

#[test]
fn a_short_text_is_one_ngram_of_all_its_words() {
    assert_eq!(set("one two", 5).len(), 1);
    assert_eq!(set("one two", 5), set("One, two.", 9));
    assert!(set("", 5).is_empty());
}

#[test]
fn ngrams_are_distinct_and_ascending() {
    let all = set("a b a b a b", 2);
    assert_eq!(all.len(), 2);
    assert!(all.is_sorted());
}

#[test]
fn hashes_are_those_of_every_other_version() {
    assert_eq!(words("Hello, wörld of 123456789"), GOLDEN_WORDS);
    assert_eq!(set("Hello, wörld of 123456789", 3), GOLDEN_NGRAMS);
    let settings = MinHashSettings { n_words: 2, permutations: 4, bands: 2, rows: 2, seed: 7 };
    assert_eq!(signature("Hello, wörld of 123456789", settings), GOLDEN_SIGNATURE);
    let batch = minhash(&[Some("Hello, wörld of 123456789")], settings).unwrap();
    let bands = batch.column(1).as_fixed_size_list().values().as_primitive::<UInt64Type>();
    assert_eq!(bands.values(), &GOLDEN_BANDS);
}

const GOLDEN_WORDS: [u64; 4] =
    [8_576_929_112_783_056_957, 7_131_379_305_146_338_846, 1_880_147_021_420_926_137, 3_525_931_236_340_857_148];
const GOLDEN_NGRAMS: [u64; 2] = [1_208_105_204_564_381_404, 7_837_588_268_626_902_698];
const GOLDEN_SIGNATURE: [u32; 4] = [1_499_803_421, 157_964_702, 1_548_624_107, 974_429_019];
const GOLDEN_BANDS: [u64; 2] = [1_768_507_698_357_279_705, 4_858_215_778_799_673_369];

#[test]
fn a_reference_is_found_with_the_number_of_its_ngrams() {
    let reference = "who was the first king of the small island";
    let text = format!("Question: {} (answer: nobody)", reference.to_uppercase());
    assert_eq!(hits(&[&text, "something else"], &["else", reference], 4, 4), [[0, 1, 6, 6]]);
    assert_eq!(hits(&["he was the first king of all"], &[reference], 4, 4), [[0, 0, 2, 6]]);
}

#[test]
fn a_short_reference_is_found_as_a_whole_from_min_words_on() {
    assert_eq!(hits(&["is the sky blue today"], &["Sky blue?", "the sky is blue"], 13, 2), [[0, 0, 1, 1]]);
    assert!(hits(&["is the sky blue today"], &["Sky blue?"], 13, 3).is_empty());
    assert!(hits(&["sky"], &["Sky blue?"], 13, 2).is_empty());
}

#[test]
fn an_ngram_of_two_references_counts_for_both() {
    assert_eq!(hits(&["a b c d"], &["a b c", "b c x", "x"], 2, 2), [[0, 0, 2, 2], [0, 1, 1, 2]]);
}

#[test]
fn a_repeated_ngram_counts_once() {
    assert_eq!(hits(&["a b a b a b"], &["a b"], 2, 2), [[0, 0, 1, 1]]);
}

#[test]
fn a_text_without_words_has_no_signature() {
    let batch = minhash(&[None, Some(" - "), Some("word")], MinHashSettings::default()).unwrap();
    for column in batch.columns() {
        assert_eq!((0..3).map(|row| column.is_valid(row)).collect::<Vec<_>>(), [false, false, true]);
    }
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let wide = MinHashSettings { bands: 17, ..MinHashSettings::default() };
    let message = minhash(&[], wide).unwrap_err().to_string();
    assert!(message.starts_with("17 bands of 8 rows need 136 of 128 permutations"), "{message}");
    let message = ngrams(&[], 0).unwrap_err().to_string();
    assert!(message.starts_with("n_words is 0; expected at least 1"), "{message}");
}

#[test]
fn equal_places_estimate_the_similarity() {
    for n in [2, 15, 100, 1000] {
        let (mean, deviation) = errors(n);
        assert!(mean.abs() < 0.006, "{n}: {mean}"); // three standard errors: 3 * 0.0417 / 20
        // sqrt(1/3 * 2/3 / 128) = 0.0417; less for small sets, which no n-gram fills alone
        assert!((0.027..0.046).contains(&deviation), "{n}: {deviation}");
    }
}

/// Mean and standard deviation of the estimate's error for texts of 2n words that share n, where a third is shared.
fn errors(n: usize) -> (f64, f64) {
    let settings = MinHashSettings { n_words: 1, ..MinHashSettings::default() };
    let text = |from: usize| (from..from + 2 * n).map(|n| format!("w{n}")).collect::<Vec<_>>().join(" ");
    let (mut sum, mut squares) = (0.0, 0.0);
    for start in (0..400).map(|trial| trial * 10 * n) {
        let (a, b) = (signature(&text(start), settings), signature(&text(start + n), settings));
        let equal = u32::try_from(a.iter().zip(&b).filter(|(a, b)| a == b).count()).unwrap();
        let error = f64::from(equal) / 128.0 - 1.0 / 3.0;
        (sum, squares) = (sum + error, squares + error * error);
    }
    (sum / 400.0, (squares / 400.0).sqrt())
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let texts: Vec<String> = (0..500_usize).map(|n| format!("text {} of {n} and {}", n % 7, n * n)).collect();
    let texts: Vec<Option<&str>> = texts.iter().map(|text| Some(text.as_str())).collect();
    let run = |n_threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| {
            let signatures = minhash(&texts, MinHashSettings::default()).unwrap();
            (signatures, ngrams(&texts, 3).unwrap(), contaminated(&texts, &texts[..50], 3, 1).unwrap())
        })
    };
    assert_eq!(run(1), run(3));
}

proptest! {
    #[test]
    fn rolling_gives_each_ngram_its_own_hash(text in "[a-d ]{0,60}", n_words in 1_usize..6) {
        let words = words(&text);
        let mut rolled = Vec::new();
        for_each_ngram(&words, n_words, |ngram| rolled.push(ngram));
        let mut alone = Vec::new();
        let size = n_words.min(words.len()).max(1);
        words.windows(size).for_each(|window| for_each_ngram(window, n_words, |ngram| alone.push(ngram)));
        prop_assert_eq!(rolled, alone);
    }

    #[test]
    fn contamination_is_the_overlap_of_the_sets(text in "[a-c ]{0,40}", reference in "[a-c ]{0,20}") {
        let (in_text, in_reference) = (set(&text, 3), set(&reference, 3));
        let shared = in_reference.iter().filter(|ngram| in_text.contains(ngram)).count();
        let expected = if words(&reference).len() < 3 || shared == 0 {
            vec![]
        } else {
            vec![[0, 0, i64::try_from(shared).unwrap(), i64::try_from(in_reference.len()).unwrap()]]
        };
        prop_assert_eq!(hits(&[&text], &[&reference], 3, 3), expected);
    }
}
