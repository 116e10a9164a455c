//! A day, and the few of Python's `strftime` directives that chat templates use.

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// A day of the Gregorian calendar.
pub struct Date {
    year: u32,
    month: u32,
    day: u32,
}

impl Date {
    /// Reads `2026-01-31`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-');
        let mut next = |n_digits: usize| {
            let part =
                parts.next().filter(|part| part.len() == n_digits && part.bytes().all(|byte| byte.is_ascii_digit()))?;
            part.parse::<u32>().ok()
        };
        let date = Self { year: next(4)?, month: next(2)?, day: next(2)? };
        let is_valid =
            date.year > 0 && (1..=12).contains(&date.month) && (1..=date.days_of_month()).contains(&date.day);
        is_valid.then_some(date)
    }

    fn is_leap(&self) -> bool {
        self.year.is_multiple_of(4) && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400))
    }

    fn days_of_month(&self) -> u32 {
        match self.month {
            2 => 28 + u32::from(self.is_leap()),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    /// 0 is Sunday (Sakamoto's rule).
    fn weekday(&self) -> usize {
        const OFFSETS: [u32; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
        let year = self.year - u32::from(self.month < 3);
        ((year + year / 4 - year / 100 + year / 400 + OFFSETS[self.month as usize - 1] + self.day) % 7) as usize
    }

    /// What Python's `strftime` writes in the C locale.
    ///
    /// # Errors
    /// A directive that is not supported.
    pub fn format(&self, format: &str) -> Result<String, String> {
        let mut text = String::new();
        let mut chars = format.chars();
        while let Some(char) = chars.next() {
            if char != '%' {
                text.push(char);
                continue;
            }
            let (month, day) = (MONTHS[self.month as usize - 1], DAYS[self.weekday()]);
            let part = match chars.next() {
                Some('Y') => format!("{:04}", self.year),
                Some('y') => format!("{:02}", self.year % 100),
                Some('m') => format!("{:02}", self.month),
                Some('d') => format!("{:02}", self.day),
                Some('B') => month.to_owned(),
                Some('b' | 'h') => month[..3].to_owned(),
                Some('A') => day.to_owned(),
                Some('a') => day[..3].to_owned(),
                Some('F') => format!("{:04}-{:02}-{:02}", self.year, self.month, self.day),
                Some('%') => "%".to_owned(),
                other => {
                    let found = other.map_or_else(|| "%".to_owned(), |other| format!("%{other}"));
                    return Err(format!(
                        "strftime_now: {found} is not supported; expected one of %Y %y %m %d %B %b %A %a %F %%"
                    ));
                }
            };
            text.push_str(&part);
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_python_does() {
        let date = Date::parse("2024-02-29").unwrap();
        assert_eq!(
            date.format("%d %b %Y|%A, %B %m %y|%a %F|100%%").unwrap(),
            "29 Feb 2024|Thursday, February 02 24|Thu 2024-02-29|100%"
        );
        assert_eq!(Date::parse("2026-11-21").unwrap().format("%A").unwrap(), "Saturday");
        assert!(date.format("%H").unwrap_err().starts_with("strftime_now: %H is not supported"));
    }

    #[test]
    fn what_is_no_day_is_refused() {
        for text in
            ["2023-02-29", "2024-13-01", "2024-00-10", "2024-1-1", "24-01-01", "2024-01-01x", "today", "0000-01-01"]
        {
            assert!(Date::parse(text).is_none(), "{text}");
        }
    }
}
