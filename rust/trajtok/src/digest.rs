//! Names what is made by what it is made of.

use sha2::{Digest, Sha256};

/// sha256 in hexadecimal digits over parts with their lengths before them: ("ab", "c") and ("a", "bc") differ.
pub(crate) fn digest_of<P: AsRef<[u8]>>(parts: impl IntoIterator<Item = P>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        let part = part.as_ref();
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let digits = |byte: &u8| [byte >> 4, byte & 15].map(|half| char::from(b"0123456789abcdef"[usize::from(half)]));
    hasher.finalize().iter().flat_map(digits).collect()
}
