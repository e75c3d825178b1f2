use futures_util::TryStreamExt;
use proptest::prelude::*;

use super::*;
use crate::folder::Folder;

const ETAG: &str = "\"abc\"";

async fn get(bytes: &'static [u8], conditions: Conditions<'_>) -> (Answer, Vec<u8>) {
    let folder = Folder::memory();
    folder.put("x", bytes).await.unwrap();
    let mut answer = send(folder.open("x").await.unwrap(), ETAG, conditions);
    let body = std::mem::replace(&mut answer.body, Box::pin(stream::iter([])));
    let chunks: Vec<Bytes> = body.try_collect().await.unwrap();
    assert_eq!(answer.length, chunks.concat().len() as u64);
    (answer, chunks.concat())
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    let found = answer.headers.iter().find(|(other, _)| *other == name);
    found.map(|(_, value)| value.as_str())
}

#[tokio::test]
async fn a_part_a_rest_and_an_end_can_be_had() {
    for (range, expected, content_range) in [
        ("bytes=2-4", &b"cde"[..], "bytes 2-4/10"),
        ("bytes=7-", b"hij", "bytes 7-9/10"),
        ("bytes=0-99", b"abcdefghij", "bytes 0-9/10"),
        ("bytes=9-9", b"j", "bytes 9-9/10"),
        ("bytes=-3", b"hij", "bytes 7-9/10"),
        ("bytes=-99", b"abcdefghij", "bytes 0-9/10"),
        ("bytes=8-99999999999999999999999", b"ij", "bytes 8-9/10"),
    ] {
        let conditions = Conditions {
            range: Some(range),
            if_range: None,
        };
        let (answer, body) = get(b"abcdefghij", conditions).await;
        assert_eq!(answer.status, 206, "{range}");
        assert_eq!(body, expected, "{range}");
        assert_eq!(header(&answer, "content-range"), Some(content_range));
        assert_eq!(header(&answer, "etag"), Some(ETAG));
    }
}

#[tokio::test]
async fn what_is_no_single_range_gets_all() {
    for range in [
        "bytes=4-2",
        "bytes=0-1,3-4",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes= 1-2",
        "bytes=+1-2",
        "items=0-1",
        "0-1",
        "",
    ] {
        let conditions = Conditions {
            range: Some(range),
            if_range: None,
        };
        let (answer, body) = get(b"abc", conditions).await;
        assert_eq!((answer.status, &body[..]), (200, &b"abc"[..]), "{range}");
        assert_eq!(header(&answer, "accept-ranges"), Some("bytes"));
    }
}

#[tokio::test]
async fn beyond_its_end_there_is_nothing() {
    for (bytes, range) in [
        (&b"abc"[..], "bytes=3-"),
        (b"abc", "bytes=99-100"),
        (b"abc", "bytes=-0"),
        (b"", "bytes=0-"),
        (b"", "bytes=-1"),
    ] {
        let conditions = Conditions {
            range: Some(range),
            if_range: None,
        };
        let (answer, _) = get(bytes, conditions).await;
        assert_eq!(answer.status, 416, "{range}");
        let expected = format!("bytes */{}", bytes.len());
        assert_eq!(header(&answer, "content-range"), Some(expected.as_str()));
    }
}

#[tokio::test]
async fn a_part_of_another_version_is_not_had() {
    for (if_range, status) in [(ETAG, 206), ("\"other\"", 200)] {
        let conditions = Conditions {
            range: Some("bytes=1-"),
            if_range: Some(if_range),
        };
        assert_eq!(get(b"abc", conditions).await.0.status, status);
    }
}

proptest! {
    #[test]
    fn a_range_is_never_more_than_there_is(
        text in "bytes=[0-9]{0,4}-[0-9]{0,4}|.{0,20}",
        total in 0..3000_u64,
    ) {
        match parse_range(&text, total) {
            Range::Part { first, last } => prop_assert!(first <= last && last < total),
            Range::Whole | Range::Beyond => {}
        }
    }

    #[test]
    fn parts_one_after_the_other_are_the_whole(
        total in 1..2000_u64,
        step in 1..500_u64,
    ) {
        let mut next = 0;
        while next < total {
            let text = format!("bytes={next}-{}", next + step - 1);
            let Range::Part { first, last } = parse_range(&text, total) else {
                panic!("{text} of {total}");
            };
            prop_assert_eq!(first, next);
            next = last + 1;
        }
        let rest = format!("bytes={total}-");
        prop_assert_eq!(parse_range(&rest, total), Range::Beyond);
    }
}
