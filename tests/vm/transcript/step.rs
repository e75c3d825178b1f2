//! One step of the transcript: a command line as a person types it, what is done while it runs,
//! and what must come of it.

/// What is done with a command.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Run to its end.
    Run,
    /// Run with this on standard input, then the end of it.
    Stdin(Vec<u8>),
    /// Run with the output of another command on standard input.
    PipeFrom(String),
    /// On a terminal: wait for the first text, type the second, and so on.
    Terminal(Vec<(&'static str, &'static str)>),
    /// Start; when `first` shows, run `then`; then wait for `last`, and end it.
    Follow {
        first: &'static str,
        then: Vec<String>,
        last: &'static str,
        end: End,
    },
}

/// How a followed command ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    ByItself,
    Interrupt,
}

/// Is the output part of what is compared between our API and the engine's own?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    Output,
    /// The output is a matter of timing.
    StatusOnly,
}

#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) line: String,
    pub(crate) act: Act,
    /// The exit status; `None` if any will do.
    pub(crate) code: Option<i32>,
    pub(crate) shows: Vec<&'static str>,
    pub(crate) compare: Compare,
}

impl Step {
    /// A command that must succeed.
    pub(crate) fn new(name: &'static str, line: &str) -> Self {
        let (line, act) = (line.to_owned(), Act::Run);
        Self {
            name,
            line,
            act,
            code: Some(0),
            shows: Vec::new(),
            compare: Compare::Output,
        }
    }

    pub(crate) fn act(mut self, act: Act) -> Self {
        self.act = act;
        self
    }

    pub(crate) fn code(mut self, code: i32) -> Self {
        self.code = Some(code);
        self
    }

    pub(crate) fn any_code(mut self) -> Self {
        self.code = None;
        self
    }

    pub(crate) fn shows(mut self, text: &'static str) -> Self {
        self.shows.push(text);
        self
    }

    pub(crate) fn status_only(mut self) -> Self {
        self.compare = Compare::StatusOnly;
        self
    }
}

/// Splits a command line as a shell would, as far as the transcript needs it: blanks separate,
/// single quotes hold together. `IMAGE` and `DIR` are replaced.
pub(crate) fn words(line: &str, image: &str, dir: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = None::<String>;
    let mut quoted = false;
    for letter in line.chars() {
        match letter {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    let fill = |word: String| word.replace("IMAGE", image).replace("DIR", dir);
    words.into_iter().map(fill).collect()
}

#[test]
fn lines_split_like_in_a_shell() {
    assert_eq!(
        words("run -e 'A=b c' IMAGE sh -c 'echo $A' ''", "x:1", "/d"),
        ["run", "-e", "A=b c", "x:1", "sh", "-c", "echo $A", ""]
    );
    assert_eq!(
        words("cp DIR/in c:/in", "x", "/d"),
        ["cp", "/d/in", "c:/in"]
    );
}
