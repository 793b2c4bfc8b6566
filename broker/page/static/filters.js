// Sends a form of filters when a choice is made, without fields that are empty: addresses stay short.
export function sendFilters(forms) {
  for (const form of forms) {
    form.addEventListener("change", (event) => {
      if (event.target instanceof HTMLSelectElement) form.requestSubmit();
    });
    form.addEventListener("formdata", (event) => {
      for (const [name, value] of [...event.formData]) {
        if (value === "" && name !== "version") event.formData.delete(name);
      }
    });
  }
}
