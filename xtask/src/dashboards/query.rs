//! Extracts the names in a PromQL query: metrics with their labels, and labels to group or match by. promtool checks
//! the syntax.

/// The names in a query, in their order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// Metrics, each with the labels in its braces.
    pub(crate) selectors: Vec<(String, Vec<String>)>,
    /// Labels in `by`, `on` and similar lists.
    pub(crate) groupings: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Sign(char),
}

const LISTS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
const KEYWORDS: [&str; 8] = ["and", "or", "unless", "bool", "offset", "inf", "nan", "atan2"];

/// Returns the names in a query. Strings, numbers and ranges in brackets are no names.
pub(crate) fn names(query: &str) -> Names {
    let tokens = tokens(query);
    let mut names = Names::default();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        let &Token::Word(word) = token else { continue };
        let next = tokens.get(at);
        if LISTS.contains(&word) && next == Some(&Token::Sign('(')) {
            names.groupings.extend(words_until(&tokens, &mut at, ')'));
        } else if LISTS.contains(&word) || KEYWORDS.contains(&word.to_lowercase().as_str()) {
            // Keywords are no names.
        } else if matches!(next, Some(Token::Word("by" | "without"))) {
            // An aggregation whose labels come first.
        } else if next == Some(&Token::Sign('{')) {
            names.selectors.push((word.to_owned(), words_until(&tokens, &mut at, '}')));
        } else if next != Some(&Token::Sign('(')) {
            names.selectors.push((word.to_owned(), Vec::new()));
        }
    }
    names
}

/// Takes the words up to a sign.
fn words_until(tokens: &[Token<'_>], at: &mut usize, end: char) -> Vec<String> {
    let mut words = Vec::new();
    while let Some(token) = tokens.get(*at) {
        *at += 1;
        match token {
            Token::Sign(sign) if *sign == end => break,
            Token::Word(word) => words.push((*word).to_owned()),
            Token::Sign(_) => {}
        }
    }
    words
}

fn tokens(query: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = query;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '"' => 1 + rest[1..].find('"').map_or(rest.len() - 1, |end| end + 1),
            '[' => rest.find(']').map_or(rest.len(), |end| end + 1),
            c if c.is_ascii_alphabetic() || c == '_' => {
                let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
                let length = end.unwrap_or(rest.len());
                tokens.push(Token::Word(&rest[..length]));
                length
            }
            c if c.is_ascii_digit() => {
                rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '.')).unwrap_or(rest.len())
            }
            c => {
                if !c.is_whitespace() {
                    tokens.push(Token::Sign(c));
                }
                c.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_taken_apart_into_metrics_and_labels() {
        let query = r#"histogram_quantile(0.99, sum by (vm, exit_reason) (rate(a_seconds{vm=~"b{c}", level!="x"}[5m] offset 1d)))
            * on (instance) group_left (policy) (b:c:d == 1) unless on () up"#;
        let Names { selectors, groupings } = names(query);
        let selectors: Vec<_> = selectors.iter().map(|(name, labels)| (name.as_str(), labels.join(","))).collect();
        assert_eq!(selectors, [("a_seconds", "vm,level".to_owned()), ("b:c:d", String::new()), ("up", String::new())]);
        assert_eq!(groupings, ["vm", "exit_reason", "instance", "policy"]);
    }

    #[test]
    fn numbers_strings_and_functions_are_no_names() {
        assert_eq!(names("1.5e3 > bool 2 and \"x\""), Names::default());
        assert_eq!(names("sum(\"unclosed"), Names::default());
    }
}
