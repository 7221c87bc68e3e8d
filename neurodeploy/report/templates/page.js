(function () {
  "use strict";
  // One profile at a time, or all. Without this script all of them are there.
  var profiles = Array.prototype.slice.call(document.querySelectorAll("article.profile"));
  var place = document.getElementById("profile-switch");
  if (place && profiles.length > 1) {
    var label = document.createElement("label");
    label.htmlFor = "profile-choice";
    label.textContent = "Show the profile ";
    var choice = document.createElement("select");
    choice.id = "profile-choice";
    [["", "all " + profiles.length]].concat(profiles.map(function (one) {
      return [one.id, one.getAttribute("data-name")];
    })).forEach(function (pair) {
      var option = document.createElement("option");
      option.value = pair[0];
      option.textContent = pair[1];
      choice.appendChild(option);
    });
    var show = function (id) {
      profiles.forEach(function (one) { one.hidden = id !== "" && one.id !== id; });
      choice.value = id;
    };
    choice.addEventListener("change", function () { show(choice.value); });
    var follow = function () {
      var id = location.hash.slice(1);
      if (profiles.some(function (one) { return one.id === id; })) {
        show(id);
        document.getElementById(id).scrollIntoView();
      }
    };
    window.addEventListener("hashchange", follow);
    place.appendChild(label);
    place.appendChild(choice);
    follow();
  }
  // What lies under the pointer, in words, below the drawing.
  Array.prototype.forEach.call(document.querySelectorAll("svg"), function (drawing) {
    if (!drawing.querySelector("title")) { return; }
    var beside = drawing.closest(".chips") || drawing;
    var words = beside.nextElementSibling;
    if (!words || words.className !== "readout") {
      words = document.createElement("p");
      words.className = "readout";
      words.setAttribute("aria-hidden", "true");
      words.textContent = "\u00a0";
      beside.parentNode.insertBefore(words, beside.nextSibling);
    }
    drawing.addEventListener("pointerover", function (event) {
      var group = event.target.closest("g");
      var title = group && group.querySelector("title");
      words.textContent = title ? title.textContent : "\u00a0";
    });
    drawing.addEventListener("pointerleave", function () { words.textContent = "\u00a0"; });
  });
})();
