# Writes the files of the console as arrays of octets into one C file: cmake -DFOLDER= -DTO= -P embed.cmake
set(text "/* Made of admin/console at build. */\n#include \"admin/console.h\"\n")
foreach(name index.html console.css console.js)
  file(READ ${FOLDER}/${name} octets HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," octets "${octets}")
  string(REGEX REPLACE "(0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,)" "\\1\n" octets "${octets}")
  string(REPLACE "." "_" stem ${name})
  string(APPEND text "const unsigned char console_${stem}[] = {\n${octets}};\n"
                     "const size_t console_${stem}_len = sizeof console_${stem};\n")
endforeach()
file(WRITE ${TO} "${text}")
