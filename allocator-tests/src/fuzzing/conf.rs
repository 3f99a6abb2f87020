//! The parser of `BURSAR_CONF` beside another that is read from its
//! documentation, and what it prints of its faults.

use bursar::Bursar;

/// A setting as the documentation has it, and its value: `None` where the text
/// has not set it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Conf {
    /// `u64::MAX` for never.
    decay_ms: Option<u64>,
    region: Option<u64>,
    at_exit: Option<AtExit>,
    switches: [Option<bool>; SWITCHES.len()],
}

/// What is told at exit: a form, and a file if it is not standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
struct AtExit {
    form: &'static str,
    file: Option<String>,
}

impl AtExit {
    fn parse(value: &str) -> Option<AtExit> {
        let (form, file) = match value.split_once(':') {
            Some((form, file)) => (form, Some(file)),
            None => (value, None),
        };
        let form = match (form, file) {
            ("on" | "true" | "1", None) => "Text",
            ("off" | "false" | "0", None) => "None",
            ("text", _) => "Text",
            ("json", _) => "Json",
            _ => return None,
        };
        let fits = |file: &str| !file.is_empty() && file.len() < 4096;
        file.is_none_or(fits).then(|| AtExit {
            form,
            file: file.map(str::to_owned),
        })
    }
}

const SWITCHES: [&str; 5] = ["background", "huge_pages", "junk", "secure", "strict_pools"];

impl Conf {
    /// Takes one item of the text. False if there is something wrong with it.
    fn take(&mut self, item: &str) -> bool {
        let (key, value) = item.split_once('=').unwrap_or((item, "on"));
        let switch = SWITCHES.iter().position(|&known| known == key);
        match (key, switch) {
            (_, Some(switch)) => match value {
                "on" | "true" | "1" => self.switches[switch] = Some(true),
                "off" | "false" | "0" => self.switches[switch] = Some(false),
                _ => return false,
            },
            ("decay_ms", _) if value == "never" => self.decay_ms = Some(u64::MAX),
            ("decay_ms", _) => match value.parse() {
                Ok(millis @ 0..=86_400_000) => self.decay_ms = Some(millis),
                _ => return false,
            },
            ("region", _) => match value.parse() {
                Ok(bytes @ 67_108_864..=1_099_511_627_776) => self.region = Some(bytes),
                _ => return false,
            },
            ("stats_at_exit", _) => match AtExit::parse(value) {
                Some(at_exit) => self.at_exit = Some(at_exit),
                None => return false,
            },
            _ => return false,
        }
        true
    }

    /// What this makes of the default settings, by the calls that set them in code.
    fn in_code(&self) -> Bursar {
        let mut bursar = Bursar::new();
        if let Some(millis) = self.decay_ms {
            bursar = bursar.decay_ms(millis);
        }
        if let Some(bytes) = self.region {
            bursar = bursar.region_bytes(bytes as usize);
        }
        let set: [fn(Bursar, bool) -> Bursar; SWITCHES.len()] = [
            Bursar::background,
            Bursar::huge_pages,
            Bursar::junk,
            Bursar::secure,
            Bursar::strict_pools,
        ];
        for (set, value) in set.into_iter().zip(self.switches) {
            if let Some(value) = value {
                bursar = set(bursar, value);
            }
        }
        bursar
    }

    /// How the settings that it makes are printed. Code cannot have a file told at exit.
    fn printed(&self) -> String {
        let printed = format!("{:?}", self.in_code());
        let nothing = "AtExit { form: None, file: None }";
        assert!(printed.contains(nothing), "{printed}");
        match &self.at_exit {
            Some(AtExit { form, file }) => printed.replace(
                nothing,
                &format!("AtExit {{ form: {form}, file: {file:?} }}"),
            ),
            None => printed,
        }
    }

    /// As text, each setting once.
    fn text(&self) -> String {
        let mut items = Vec::new();
        if let Some(millis) = self.decay_ms {
            items.push(match millis {
                u64::MAX => "decay_ms=never".to_owned(),
                millis => format!("decay_ms={millis}"),
            });
        }
        if let Some(bytes) = self.region {
            items.push(format!("region={bytes}"));
        }
        if let Some(AtExit { form, file }) = &self.at_exit {
            let form = match *form {
                "None" => "off".to_owned(),
                form => form.to_lowercase(),
            };
            let file = file.iter().map(|file| format!(":{file}"));
            items.push(format!("stats_at_exit={form}{}", file.collect::<String>()));
        }
        for (key, value) in SWITCHES.iter().zip(self.switches) {
            if let Some(value) = value {
                items.push(format!("{key}={}", if value { "on" } else { "off" }));
            }
        }
        items.join(",")
    }
}

/// The settings that a text makes, and how many faults were told of.
fn told(text: &[u8]) -> (String, usize) {
    // SAFETY: the settings, which keep the name of a file, are gone before the text is.
    let text: &'static [u8] = unsafe { &*std::ptr::from_ref(text) };
    let mut faults = 0;
    let bursar = Bursar::new().with_conf(text, |line| {
        faults += 1;
        assert!(
            line.starts_with("bursar: BURSAR_CONF: ") && line.ends_with('\n'),
            "the message {line:?}"
        );
        assert_eq!(line.matches('\n').count(), 1, "the message {line:?}");
    });
    (format!("{bursar:?}"), faults)
}

/// Parses a text, prints what it set, and parses that.
///
/// # Panics
/// If the settings are not what the documentation says, or a fault is not
/// reported by one whole line.
pub fn run(text: &[u8]) {
    // The environment has no such byte in it.
    let text = &text[..text
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(text.len())];
    let mut conf = Conf::default();
    let mut faults = 0;
    match std::str::from_utf8(text) {
        Ok(text) => {
            let items = text.split(',').map(str::trim);
            for item in items.filter(|item| !item.is_empty()) {
                faults += usize::from(!conf.take(item));
            }
        }
        Err(_) => faults = 1,
    }
    let expected = conf.printed();
    assert_eq!(told(text), (expected.clone(), faults));
    assert_eq!(told(conf.text().as_bytes()), (expected, 0));
}
