//! Pages of lists whose elements have names in an order that never changes: whatever happens to
//! them meanwhile, the pages together have each once that is there all the time.

use std::sync::Arc;

/// Names that are looked at for one page, however few of them are wanted. Such a page has fewer
/// elements than asked for, and still a place to go on from.
const LOOKED_AT_MAX: usize = 10_000;

/// Up to `limit` of what `show` makes of names, and the last name of the page unless it is the last
/// page.
pub(super) fn page<T>(
    names: impl Iterator<Item = Arc<str>>,
    limit: usize,
    mut show: impl FnMut(&Arc<str>) -> Option<T>,
) -> (Vec<T>, Option<Arc<str>>) {
    let (mut found, mut last) = (Vec::new(), None);
    for (looked_at, name) in names.enumerate() {
        if found.len() == limit || looked_at == LOOKED_AT_MAX {
            return (found, last);
        }
        found.extend(show(&name));
        last = Some(name);
    }
    (found, None)
}

/// Names that come some at a time: `next` gives those behind a name, none at the end.
pub(super) fn in_turn(
    after: String,
    mut next: impl FnMut(&str) -> Vec<Arc<str>>,
) -> impl Iterator<Item = Arc<str>> {
    let (mut after, mut some) = (after, Vec::new().into_iter());
    std::iter::from_fn(move || {
        if let Some(name) = some.next() {
            return Some(name);
        }
        let names = next(&after);
        after = names.last()?.to_string();
        some = names.into_iter();
        some.next()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize) -> Vec<Arc<str>> {
        (0..count).map(|number| format!("{number:05}").into()).collect()
    }

    #[test]
    fn a_page_ends_when_it_is_full_and_goes_on_behind_its_last_name() {
        let all = |name: &Arc<str>| Some(name.to_string());
        let page = |count: usize| page(numbers(count).into_iter(), 2, all);
        assert_eq!(page(3), (vec!["00000".into(), "00001".into()], Some("00001".into())));
        assert_eq!(page(2), (vec!["00000".into(), "00001".into()], None));
        assert_eq!(page(0), (vec![], None));
    }

    #[test]
    fn a_page_that_finds_nothing_looks_at_no_more_than_its_share() {
        let mut looked_at = 0;
        let names = numbers(LOOKED_AT_MAX + 5).into_iter();
        let (found, next) = page(names, 2, |_| {
            looked_at += 1;
            None::<()>
        });
        assert_eq!((found.len(), looked_at), (0, LOOKED_AT_MAX));
        assert_eq!(next.as_deref(), Some("09999"));
    }

    #[test]
    fn names_come_in_turn_until_there_are_no_more() {
        let all = numbers(5);
        let names = in_turn(String::new(), |after| {
            all.iter().filter(|name| &***name > after).take(2).cloned().collect()
        });
        assert_eq!(names.collect::<Vec<_>>(), all);
    }
}
