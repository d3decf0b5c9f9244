use proptest::prelude::{Just, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{HostPort, Login, Place, RedisUrl, Sentinels};

fn parse(text: &str) -> RedisUrl {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn host(host: &str, port: u16) -> HostPort {
    HostPort { host: host.to_owned(), port }
}

fn login(user: Option<&str>, password: &str) -> Option<Login> {
    Some(Login { user: user.map(str::to_owned), password: password.to_owned() })
}

#[test]
fn reads_every_form() {
    let url = parse("redis://localhost");
    assert_eq!(url.place(), &Place::Server(host("localhost", 6379)));
    assert_eq!((url.login(), url.database(), url.uses_tls()), (None, 0, false));

    let url = parse("rediss://app:secret@redis.example.com:7000/3");
    assert_eq!(url.place(), &Place::Server(host("redis.example.com", 7000)));
    assert_eq!(url.login, login(Some("app"), "secret"));
    assert_eq!((url.database(), url.uses_tls()), (3, true));

    let url = parse("redis://:p%40ss%2Fw%25rd@[2001:db8::1]/");
    assert_eq!(url.place(), &Place::Server(host("2001:db8::1", 6379)));
    assert_eq!(url.login, login(None, "p@ss/w%rd"));

    let url = parse("unix:///run/redis%20a/redis.sock?db=2&user=app&pass=s%26t");
    assert_eq!(url.place(), &Place::Socket("/run/redis a/redis.sock".into()));
    assert_eq!((url.login.clone(), url.database()), (login(Some("app"), "s&t"), 2));

    let url = parse(
        "rediss+sentinel://app:x@s1,s2:5000,[::1]:5001/main/4?sentinel_user=watch&sentinel_password=y",
    );
    assert_eq!(
        url.place(),
        &Place::Sentinels(Sentinels {
            hosts: vec![host("s1", 26379), host("s2", 5000), host("::1", 5001)],
            master: "main".to_owned(),
            login: login(Some("watch"), "y"),
        })
    );
    assert_eq!((url.login.clone(), url.database()), (login(Some("app"), "x"), 4));
    assert!(url.uses_tls() && url.uses_sentinel());
}

#[test]
fn a_raw_at_sign_in_the_password_is_taken_as_part_of_it() {
    let url = parse("redis://:p@ss:w@host");
    assert_eq!(url.login, login(None, "p@ss:w"));
}

#[test]
fn shows_no_password() {
    let shown = [
        ("redis://app:secret@host", "redis://app:***@host:6379/0"),
        ("redis://:secret@[::1]:1/5", "redis://:***@[::1]:1/5"),
        ("rediss://host", "rediss://host:6379/0"),
        ("unix:///a%20b?pass=secret", "unix:///a%20b?db=0&pass=***"),
        ("unix:///a?user=app&pass=secret&db=1", "unix:///a?db=1&user=app&pass=***"),
        (
            "redis+sentinel://app:secret@a,b:1/main/2?sentinel_password=secret",
            "redis+sentinel://app:***@a:26379,b:1/main/2?sentinel_password=***",
        ),
    ];
    for (text, expected) in shown {
        let url = parse(text);
        assert_eq!(url.to_string(), expected);
        assert_eq!(format!("{url:?}"), format!("RedisUrl({expected})"));
        assert!(!format!("{:?} {:?}", url.login(), url.place()).contains("secret"));
    }
}

/// One mistake each, with what the error must say.
const MISTAKES: [(&str, &str); 36] = [
    ("", "there is no address"),
    ("localhost:6379", "does not begin with a scheme"),
    ("redis:/host", "does not begin with a scheme"),
    ("hush@host", "\"***@host\": it does not begin with a scheme"),
    ("http://host", "the scheme is not known; begin with redis://, rediss://, unix://"),
    ("redis://host\n", "there is a space or a line break in it"),
    ("redis://:hu hush@host", "there is a space or a line break in it"),
    ("redis://", "there is no host"),
    ("redis://:6379", "there is no host"),
    ("redis://a,b", "there is more than one host; name one, or"),
    ("redis://host:", "the port `` is not a number from 1 to 65535"),
    ("redis://host:0", "the port `0` is not a number"),
    ("redis://host:65536", "the port `65536` is not a number"),
    ("redis://host:+1", "the port `+1` is not a number"),
    ("redis://::1:6379", "put an IPv6 address into brackets"),
    ("redis://[::1", "there is a `[` without a `]`"),
    ("redis://[::1]6379", "there is no `:` before the port"),
    ("redis://[host]", "`host` is not an IPv6 address"),
    ("redis://h\u{f6}st", "is not the name of a host"),
    ("redis://host/x", "the database `x` is not a number"),
    ("redis://host/0/", "the database `0/` is not a number"),
    ("redis://host/-1", "the database `-1` is not a number"),
    ("redis://host?protocol=resp3", "the parameter `protocol` is not known"),
    ("redis://host#insecure", "there is a `#` in it"),
    ("redis://app@host", "there is no `:` before the `@`"),
    ("redis://:@host", "the password is empty; write the password, or leave it out"),
    ("redis://:hush/hush@host", "or a `/`, `?` or `#` in the password; percent-encode"),
    ("redis://:hush?hush@host", "\"redis://***@host\": there is an `@` behind the host"),
    ("redis://:hush%zz@host", "in the password, `%` is not followed by two hexadecimal digits"),
    ("redis://:%ff@host", "the password is not UTF-8"),
    ("unix://redis.sock", "the path of the socket is not absolute; write three slashes"),
    ("unix:///a?pass=hush&hush=t", "?pass=***&***\": there is a parameter that is not known"),
    ("unix:///a?db=1&db=2", "a parameter is there twice"),
    ("unix:///a?user=app", "there is a user, but no password"),
    ("redis+sentinel://a,b", "the name of the master is missing; write it behind the Sentinels"),
    ("redis+sentinel://a,,b/main", "there is no host"),
];

#[test]
fn says_what_is_wrong_and_what_to_do() {
    for (text, expected) in MISTAKES {
        let error = text.parse::<RedisUrl>().unwrap_err();
        let shown = error.to_string();
        assert!(shown.contains(expected), "`{text}` gave `{shown}`");
        assert_eq!(shown, format!("{}; {}", error.text(), error.fix()));
        assert!(!shown.contains("hu"), "`{text}` gave `{shown}`");
        assert_eq!(shown.lines().count(), 1, "`{shown}`");
    }
}

#[test]
fn bounds_what_is_named() {
    let many = vec!["s"; 17].join(",");
    let error = format!("redis+sentinel://{many}/main").parse::<RedisUrl>().unwrap_err();
    assert!(error.to_string().contains("there are 17 Sentinels; name at most 16"), "{error}");
    let error = format!("unix:///{}", "a".repeat(107)).parse::<RedisUrl>().unwrap_err();
    assert!(error.to_string().contains("it must have at most 107 bytes"), "{error}");
}

fn any_login() -> impl Strategy<Value = Option<Login>> {
    prop_oneof![
        Just(None),
        (proptest::option::of("\\PC{1,12}"), "[^*]{1,12}")
            .prop_map(|(user, password)| Some(Login { user, password })),
    ]
}

proptest! {
    /// What is shown is the same address again, but for the password.
    #[test]
    fn what_is_shown_can_be_read(
        login in any_login(),
        hosts in proptest::collection::vec(("[a-z0-9.-]{1,20}|::1", 1..=u16::MAX), 1..5),
        master in "\\PC{1,10}",
        sentinel_login in any_login(),
        database in 0..99_u32,
        tls: bool,
        place in 0..3,
    ) {
        let hosts: Vec<_> = hosts.into_iter().map(|(host, port)| HostPort { host, port }).collect();
        let place = match place {
            0 => Place::Server(hosts[0].clone()),
            1 => Place::Socket(format!("/run/{master}_").into()),
            _ => Place::Sentinels(Sentinels { hosts, master, login: sentinel_login }),
        };
        let tls = tls && !matches!(place, Place::Socket(_));
        let url = RedisUrl { place, tls, login, database };
        let again = parse(&url.to_string());
        prop_assert_eq!(again.to_string(), url.to_string());
        let mut expected = url;
        expected.login = expected.login.map(hidden);
        if let Place::Sentinels(sentinels) = &mut expected.place {
            sentinels.login = sentinels.login.take().map(hidden);
        }
        prop_assert_eq!(again, expected);
    }

    /// No text makes the parser panic or an error have more than one line.
    #[test]
    fn any_text_is_answered(text in "(rediss?|unix|redis\\+sentinel)://[\\PC@:/?#%&=,\\[\\]]{0,40}|\\PC*") {
        if let Err(error) = text.parse::<RedisUrl>() {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }
}

fn hidden(login: Login) -> Login {
    Login { password: "***".to_owned(), ..login }
}
