// Sets the colors that were chosen before anything is drawn; it is a script of its own because modules run later.
"use strict";
try {
  const theme = localStorage.getItem("multiway.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage can be forbidden; the colors of the system stay.
}
