//! The font of a picture.

use std::path::{Path, PathBuf};

use ab_glyph::{Font, FontRef};

use crate::message::{Failure, cannot, say};

/// Fonts with Chinese, Japanese and Korean letters, where systems have them.
const SYSTEM: [&str; 12] = [
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/noto-cjk/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/google-noto-cjk/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc",
    "/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf",
    "/usr/share/fonts/opentype/ipafont-gothic/ipag.ttf",
    "/System/Library/Fonts/PingFang.ttc",
    "/System/Library/Fonts/Hiragino Sans GB.ttc",
    "/Library/Fonts/Arial Unicode.ttf",
    "C:\\Windows\\Fonts\\msyh.ttc",
    "C:\\Windows\\Fonts\\malgun.ttf",
];

/// Reads a font. It stays in memory to the end of the program, because plotters needs a `'static` font.
pub fn read(path: &Path) -> Result<&'static [u8], Failure> {
    let bytes: &'static [u8] = std::fs::read(path).map_err(|error| cannot("read", path, error))?.leak();
    FontRef::try_from_slice(bytes).map_err(|error| cannot("read", path, error))?;
    Ok(bytes)
}

/// The built-in font, or one of the system if that has letters of the text which the built-in one lacks. If none has them all, a note
/// says so.
pub fn for_text(text: &str) -> &'static [u8] {
    let built_in = dejavu::sans::regular();
    let Some(letter) = lacking(built_in, text) else { return built_in };
    static FOUND: std::sync::OnceLock<Option<&'static [u8]>> = std::sync::OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let files = SYSTEM.iter().map(PathBuf::from).filter(|path| path.is_file());
        files.filter_map(|path| read(&path).ok()).find(|font| lacking(font, text).is_none())
    });
    match found {
        Some(font) if lacking(font, text).is_none() => font,
        _ => {
            say(format_args!("note: the built-in font lacks letters such as {letter:?}: name another one by --font"));
            built_in
        }
    }
}

/// A letter of the text that the font lacks.
fn lacking(font: &[u8], text: &str) -> Option<char> {
    let font = FontRef::try_from_slice(font).ok()?;
    text.chars().find(|&letter| !letter.is_whitespace() && font.glyph_id(letter).0 == 0)
}
